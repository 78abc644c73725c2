"""Container images out: an OCI image layout (image-spec 1.1) with a single layer."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from pathlib import Path
from typing import Any, BinaryIO, Final

from humfs.image import REF_NAME, Description
from runtime.images.sink import ImageReport
from runtime.images.writers import copy

_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64", "i686": "386"}
_LAYER: Final = "application/vnd.oci.image.layer.v1.tar"
_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
_INDEX: Final = "application/vnd.oci.image.index.v1+json"
_KEPT: Final = ("architecture", "os", "os.version", "os.features", "variant", "author", "created", "config")
"""What a config says that goes for the image in any number of layers."""


def to_oci(stream: BinaryIO, root: Path, about: Description | None, name: str | None, report: ImageReport) -> None:
    """Into a new layout at `root`, whose only image is called `name` (or as `about` says, if at all) and is to be run
    as `about` says."""
    blobs = root / "blobs/sha256"
    blobs.mkdir(parents=True)
    layer = _put_layer(stream, blobs, report)
    config = _put(blobs, _CONFIG, _config(about, str(layer["digest"])))
    manifest = _put(blobs, _MANIFEST, {"schemaVersion": 2, "mediaType": _MANIFEST, "config": config, "layers": [layer]})
    name = name or (about.name if about is not None else None)
    if name:
        manifest["annotations"] = {REF_NAME: name}
    index = {"schemaVersion": 2, "mediaType": _INDEX, "manifests": [manifest]}
    (root / "index.json").write_text(_json(index))
    (root / "oci-layout").write_text(_json({"imageLayoutVersion": "1.0.0"}))


def _config(about: Description | None, digest: str) -> dict[str, Any]:
    """How the image is to be run: its history has all that was, and one step that made a layer."""
    said = about.config if about is not None else {}
    machine = _ARCHITECTURES.get(platform.machine(), platform.machine())
    made: dict[str, Any] = {"architecture": machine, "os": "linux", "config": {}}
    made |= {key: said[key] for key in _KEPT if key in said}
    made["rootfs"] = {"type": "layers", "diff_ids": [digest]}
    history = said.get("history")
    if isinstance(history, list):
        steps = [{**step, "empty_layer": True} for step in history if isinstance(step, dict)]
        made["history"] = [*steps, {"created_by": "uml image convert", "comment": "all layers in one"}]
    return made


def _put_layer(stream: BinaryIO, blobs: Path, report: ImageReport) -> dict[str, object]:
    digest = hashlib.sha256()
    made = blobs / "layer"
    with open(made, "xb") as output:

        def write(data: bytes) -> None:
            digest.update(data)
            output.write(data)

        copy(stream, write, report)
        size = output.tell()
    os.rename(made, blobs / digest.hexdigest())
    return {"mediaType": _LAYER, "digest": f"sha256:{digest.hexdigest()}", "size": size}


def _put(blobs: Path, kind: str, document: object) -> dict[str, object]:
    data = _json(document).encode()
    digest = hashlib.sha256(data).hexdigest()
    (blobs / digest).write_bytes(data)
    return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(data)}


def _json(document: object) -> str:
    return json.dumps(document, sort_keys=True)
