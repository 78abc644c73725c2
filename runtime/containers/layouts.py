"""The OCI layout that holds what was fetched: whether an image is whole in it, and which stay."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from humfs.archive import check_image
from humfs.image import LAYOUT, REF_NAME
from runtime.host import cache
from umlfs.errors import UmlError

_INDEX: Final = "index.json"
_PARTIAL: Final = "oci-put-blob*"
"""What skopeo calls a blob that it is writing."""


def has(layout: Path, name: str) -> bool:
    """Whether the image `name` is there, as far as the index knows."""
    try:
        return any(_name(entry) == name for entry in _entries(layout))
    except (OSError, ValueError):
        return False


def is_broken(layout: Path) -> bool:
    """Whether it is there, and its documents cannot be read."""
    try:
        _entries(layout)
        return "imageLayoutVersion" not in json.loads((layout / LAYOUT).read_text())
    except (OSError, ValueError, TypeError):
        return layout.exists()


def is_whole(layout: Path, name: str) -> bool:
    """Whether the layers of the image `name` are those of their digests. Reads all of it."""
    try:
        check_image(layout, name)
    except (UmlError, OSError):
        return False
    return True


def keep(layout: Path, name: str, count: int) -> None:
    """Note that the image `name` is used, and remove those that others of `count` were used after, with the blobs that
    nobody else has."""
    entries = _entries(layout)
    used = [
        *(entry for entry in entries if _name(entry) != name),
        *(entry for entry in entries if _name(entry) == name),
    ]
    kept = used[-count:]
    if kept == entries:
        return
    index = json.loads((layout / _INDEX).read_text())
    cache.write_atomically(layout / _INDEX, json.dumps({**index, "manifests": kept}).encode())
    if len(kept) < len(entries):
        _sweep(layout, {digest for entry in kept for digest in _digests(layout, entry)})


def _entries(layout: Path) -> list[dict[str, Any]]:
    """Those of the index, the one used last at the end. OSError, ValueError."""
    index = json.loads((layout / _INDEX).read_text())
    found = index.get("manifests") if isinstance(index, dict) else None
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise ValueError("no index of manifests")
    return found


def _name(entry: dict[str, Any]) -> str | None:
    notes = entry.get("annotations")
    return notes.get(REF_NAME) if isinstance(notes, dict) else None


def _digests(layout: Path, entry: dict[str, Any]) -> Iterator[str]:
    """All blobs of an image."""
    digest = str(entry.get("digest"))
    yield digest
    with contextlib.suppress(OSError, ValueError):
        manifest = json.loads((layout / "blobs" / digest.replace(":", "/")).read_text())
        for each in (manifest.get("config", {}), *manifest.get("layers", [])):
            yield str(each.get("digest"))


def _sweep(layout: Path, needed: set[str]) -> None:
    for path in layout.glob("blobs/*/*"):
        if f"{path.parent.name}:{path.name}" not in needed:
            path.unlink()
    for path in layout.glob(_PARTIAL):
        path.unlink()
