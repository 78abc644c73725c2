"""Container images in: an OCI image layout (a directory, or packed as tar), or what `docker save` writes.

Formats: OCI image-spec 1.1 (image-layout.md, manifest.md, layer.md, config.md) and Docker's image specification 1.2
(manifest.json), as docker, podman and skopeo write it. Layers are put on each other from the lowest up; `.wh.NAME`
removes NAME of the layers below, `.wh..wh..opq` all that they have in its directory. Blobs are held to their digests.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

import trio

from humfs.imagefiles import Directory, Files
from humfs.importer import Importer, Member
from humfs.tarball import add_member, opened
from umlfs.errors import UmlError

LAYOUT: Final = "oci-layout"
INDEX: Final = "index.json"
DOCKER: Final = "manifest.json"
REF_NAME: Final = "org.opencontainers.image.ref.name"

WHITEOUT: Final = b".wh."
OPAQUE: Final = b".wh..wh..opq"
_AUFS: Final = b".wh..wh."
"""What the names of aufs's own files begin with."""

_DOCUMENT_MAX: Final = 4 << 20
_DEPTH_MAX: Final = 4
_DIGEST: Final = re.compile(r"(sha256|sha512):([0-9a-f]{64,128})")
_FIRST: Final = re.compile(
    r"oci-layout|index\.json|manifest\.json|repositories|blobs(/.*)?|[0-9a-f]{64}(\.tar|\.json|/.*)?|.*\.json|.*\.tar"
)
_MACHINES: Final = {"x86_64": "amd64", "aarch64": "arm64", "i686": "386", "armv7l": "arm"}
_CHUNK: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Description:
    """What an image is, but for its files."""

    layers: tuple[tuple[str, str | None], ...]
    """From the lowest up: the name of each one's file, and its digest if it is known."""
    config: dict[str, Any]
    """How it is to be run, and what it was made of: see config.md. Empty if the image does not say."""
    name: str | None
    """That by which its layout or archive knows it."""


def find_image(path: Path) -> Directory | None:
    """The image in a directory, if it is one."""
    files = Directory(path)
    return files if is_image(files) else None


def may_begin_image(first: str) -> bool:
    """Whether a tar archive whose first member has this name may be an image rather than a tree."""
    return _FIRST.fullmatch(os.path.normpath(first)) is not None


def is_image(files: Files) -> bool:
    """Whether the files are those of an image: they have a layout's documents, or a list of layers that are there."""
    try:
        if files.has(LAYOUT) and files.has(INDEX):
            return "imageLayoutVersion" in _document(files, LAYOUT) and "manifests" in _document(files, INDEX)
        listed = _json(files, DOCKER) if files.has(DOCKER) else None
        return (
            isinstance(listed, list)
            and bool(listed)
            and all(files.has(str(name)) for each in listed for name in _list(each, "Layers"))
        )
    except UmlError:
        return False


async def add_image(
    importer: Importer, files: Files, progress: Callable[[int], None] = lambda count: None, tag: str | None = None
) -> int:
    """Put all layers of an image into the importer's filesystem; returns the number of their members.

    Of an image for several architectures, this host's is taken; of several images, that which is called `tag`.
    UmlError for what is no image, or damaged.
    """
    count = 0
    for name, digest in describe(files, tag).layers:
        count = await _add_layer(importer, files, name, digest, progress, count)
    return count


def describe(files: Files, tag: str | None = None) -> Description:
    """What the image called `tag`, or the only one, is. UmlError."""
    if files.has(LAYOUT):
        entry, manifest = _manifest(files, _document(files, INDEX), tag)
        digests = [_digest(layer) for layer in _list(manifest, "layers")]
        config = _digest(manifest.get("config")) if manifest.get("config") else None
        return Description(
            tuple((_blob(digest), digest) for digest in digests),
            _document(files, _blob(config), config) if config is not None else {},
            _ref_name(entry),
        )
    return _describe_docker(_json(files, DOCKER), files, tag)


def _describe_docker(images: Any, files: Files, tag: str | None) -> Description:
    found = [each for each in images if isinstance(each, dict)] if isinstance(images, list) else []
    named = [(each, _names(each)) for each in found]
    if tag is not None:
        named = [(each, names) for each, names in named if tag in names or any(n.endswith(f":{tag}") for n in names)]
    if len(named) != 1:
        there = [name for each in found for name in _names(each) or ["one without a name"]]
        raise _not_one("archive", tag, there)
    image, names = named[0]
    config = image.get("Config")
    known = _document(files, config) if isinstance(config, str) and files.has(config) else {}
    return Description(
        tuple((str(name), None) for name in _list(image, "Layers")), known, tag or (names[0] if names else None)
    )


def _names(image: dict[str, Any]) -> list[str]:
    said = image.get("RepoTags")
    return [str(name) for name in said] if isinstance(said, list) else []


def _manifest(files: Files, index: dict[str, Any], tag: str | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """The entry of the index that is meant, and the manifest that it leads to."""
    entries = [entry for entry in _list(index, "manifests") if isinstance(entry, dict)]
    chosen = [entry for entry in entries if tag is None or _ref_name(entry) == tag]
    fitting = _fitting(chosen)
    if entries and (not chosen or len(fitting) > 1):
        raise _not_one("layout", tag, [_ref_name(entry) or "one without a name" for entry in entries])
    for depth in range(_DEPTH_MAX):
        entry = _first(fitting)
        digest = _digest(entry)
        document = _document(files, _blob(digest), digest)
        if "manifests" not in document:
            return (entry if depth == 0 or not chosen else chosen[0]), document
        fitting = _fitting([each for each in _list(document, "manifests") if isinstance(each, dict)])
    raise UmlError("the image's indexes lead to each other", "save it again")


def _first(fitting: list[dict[str, Any]]) -> dict[str, Any]:
    if not fitting:
        raise UmlError(f"the image has nothing for {_here()}", "save it for this machine's architecture")
    return fitting[0]


def _fitting(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those for this host's architecture, or for any."""
    return [entry for entry in entries if _architecture(entry) in (_here(), None)]


def _architecture(entry: dict[str, Any]) -> Any:
    said = entry.get("platform")
    return said.get("architecture") if isinstance(said, dict) else None


def _here() -> str:
    return _MACHINES.get(platform.machine(), platform.machine())


def _ref_name(entry: dict[str, Any]) -> str | None:
    notes = entry.get("annotations")
    name = notes.get(REF_NAME) if isinstance(notes, dict) else None
    return name if isinstance(name, str) else None


def _not_one(what: str, tag: str | None, names: list[str]) -> UmlError:
    there = ", ".join(names) or "none"
    if tag is not None:
        return UmlError(f"the {what} has no image {tag}", f"there is {there}")
    return UmlError(f"the {what} has several images: {there}", "name one: oci:PATH:NAME")


def _blob(digest: str) -> str:
    algorithm, _, value = digest.partition(":")
    return f"blobs/{algorithm}/{value}"


def _digest(entry: Any) -> str:
    digest = entry.get("digest") if isinstance(entry, dict) else None
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise UmlError("the image names a blob without a proper digest", "save it again")
    return digest


def _list(document: Any, key: str) -> list[Any]:
    found = document.get(key) if isinstance(document, dict) else None
    if not isinstance(found, list):
        raise UmlError(f"the image's manifest has no list '{key}'", "save it again")
    return found


def _document(files: Files, name: str, digest: str | None = None) -> dict[str, Any]:
    document = _json(files, name, digest)
    if not isinstance(document, dict):
        raise UmlError(f"{name}: no JSON object", "save the image again")
    return document


def _json(files: Files, name: str, digest: str | None = None) -> Any:
    with files.open(name) as file:
        data = file.read(_DOCUMENT_MAX)
    if digest is not None:
        algorithm, _, value = digest.partition(":")
        _compare(name, value, hashlib.new(algorithm, data).hexdigest())
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise UmlError(f"{name}: no JSON", "save the image again") from None


def _compare(name: str, expected: str, found: str) -> None:
    if expected != found:
        raise UmlError(f"{name}: its contents are not those of its digest", "fetch the image again")


# Layers ---------------------------------------------------------------------------------------


class _Hashed:
    """A stream that is hashed as it is read."""

    def __init__(self, stream: BinaryIO, algorithm: str) -> None:
        self._stream = stream
        self.hash = hashlib.new(algorithm)

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self.hash.update(data)
        return data


async def _add_layer(
    importer: Importer, files: Files, name: str, digest: str | None, progress: Callable[[int], None], count: int
) -> int:
    fresh: set[int] = set()
    with files.open(name) as raw:
        hashed = _Hashed(raw, (digest or "sha256:").partition(":")[0])
        with opened(cast(BinaryIO, hashed), importer.losses) as archive:
            for member in archive:
                await _add(importer, member, fresh)
                count += 1
                if not count % 200:
                    progress(count)
                    await trio.lowlevel.checkpoint()
        while hashed.read(_CHUNK):
            pass
    if digest is not None:
        _compare(name, digest.partition(":")[2], hashed.hash.hexdigest())
    return count


def check_layer(files: Files, name: str, digest: str | None) -> None:
    """Read a layer to its end, and compare it with its digest. UmlError."""
    with files.open(name) as raw:
        hashed = _Hashed(raw, (digest or "sha256:").partition(":")[0])
        with opened(cast(BinaryIO, hashed)) as archive:
            for _ in archive.steps():
                pass
        while hashed.read(_CHUNK):
            pass
    if digest is not None:
        _compare(name, digest.partition(":")[2], hashed.hash.hexdigest())


async def _add(importer: Importer, member: Member, fresh: set[int]) -> None:
    """One member of a layer; `fresh` are the inodes that the layer has made so far."""
    path = member.path
    base = path[-1] if path else b""
    if base == OPAQUE:
        await importer.clear(path[:-1], fresh)
    elif base.startswith(_AUFS):
        pass
    elif base.startswith(WHITEOUT) and len(base) > len(WHITEOUT):
        await importer.remove((*path[:-1], base[len(WHITEOUT) :]), fresh)
    else:
        made = await add_member(importer, member)
        linked = importer.find(path) if member.link is not None else None
        fresh.add(linked.ino if linked is not None else made)
