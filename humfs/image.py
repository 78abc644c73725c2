"""Container images in: an OCI image layout (a directory, or packed as tar), or what `docker save` writes.

Formats: OCI image-spec 1.1 (image-layout.md, manifest.md, layer.md) and Docker's image specification 1.2
(manifest.json). Layers are put on each other from the lowest up; `.wh.NAME` removes NAME of the layers below,
`.wh..wh..opq` all that they have in its directory. Blobs are held to their digests.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import platform
import re
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol, cast

import trio

from humfs.importer import Importer, split
from humfs.tarball import add_member, members, opened
from umlfs.errors import UmlError

LAYOUT: Final = "oci-layout"
INDEX: Final = "index.json"
DOCKER: Final = "manifest.json"

WHITEOUT: Final = b".wh."
OPAQUE: Final = b".wh..wh..opq"

_DOCUMENT_MAX: Final = 4 << 20
_DEPTH_MAX: Final = 4
_DIGEST: Final = re.compile(r"(sha256|sha512):([0-9a-f]{64,128})")
_MACHINES: Final = {"x86_64": "amd64", "aarch64": "arm64", "i686": "386", "armv7l": "arm"}
_CHUNK: Final = 1 << 20


class Files(Protocol):
    """The files of an image, by their names within it."""

    def has(self, name: str) -> bool: ...

    def open(self, name: str) -> contextlib.AbstractContextManager[BinaryIO]: ...


class Directory:
    """An image unpacked in a directory."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def has(self, name: str) -> bool:
        return self._place(name).is_file()

    def open(self, name: str) -> contextlib.AbstractContextManager[BinaryIO]:
        place = self._place(name)
        if not place.is_file():
            raise _missing(name)
        return open(place, "rb")

    def _place(self, name: str) -> Path:
        """Where the file is. UmlError for a name that leads out of the image."""
        place = (self._root / name).resolve()
        if not place.is_relative_to(self._root.resolve()):
            raise UmlError(f"{name}: not in the image", "it names files of this machine, do not trust it")
        return place


class Packed:
    """An image in an uncompressed tar file, which is read in any order."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._places: dict[str, tuple[int, int]] = {}
        self._aliases: dict[str, str] = {}
        with tarfile.TarFile(fileobj=file) as archive:
            for info in members(archive):
                name = os.path.normpath(info.name)
                if info.isfile():
                    self._places[name] = (info.offset_data, info.size)
                elif info.issym():  # a layer that two images share
                    target = os.path.normpath(os.path.join(os.path.dirname(name), info.linkname))
                    self._aliases[name] = target

    def has(self, name: str) -> bool:
        return self._place(name) is not None

    def _place(self, name: str) -> tuple[int, int] | None:
        name = os.path.normpath(name)
        return self._places.get(self._aliases.get(name, name))

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        place = self._place(name)
        if place is None:
            raise _missing(name)
        yield cast(BinaryIO, io.BufferedReader(_Part(self._file.fileno(), *place), _CHUNK))


def _missing(name: str) -> UmlError:
    return UmlError(f"the image has no file {name}", "save it again, it is not whole")


class _Part(io.RawIOBase):
    """Part of a file."""

    def __init__(self, fd: int, offset: int, size: int) -> None:
        self._fd = fd
        self._offset = offset
        self._left = size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)[: self._left]
        count = os.preadv(self._fd, [view], self._offset) if view else 0
        self._offset += count
        self._left -= count
        return count


class _Hashed:
    """A stream that is hashed as it is read."""

    def __init__(self, stream: BinaryIO, algorithm: str) -> None:
        self._stream = stream
        self.hash = hashlib.new(algorithm)

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self.hash.update(data)
        return data


def find_image(path: Path) -> Directory | None:
    """The image in a directory, if it is one."""
    files = Directory(path)
    return files if files.has(LAYOUT) or files.has(DOCKER) else None


def is_packed_image(first: str) -> bool:
    """Whether a tar archive whose first member has this name is an image rather than a tree."""
    name = os.path.normpath(first)
    return (
        name in (LAYOUT, INDEX, DOCKER, "repositories", "blobs")
        or name.startswith("blobs/")
        or re.fullmatch(r"[0-9a-f]{64}(/.*|\.json)?", name) is not None
    )


async def add_image(importer: Importer, files: Files, progress: Callable[[int], None] = lambda count: None) -> int:
    """Put all layers of an image into the importer's filesystem; returns the number of their members.

    Of an image for several architectures, this host's is taken. UmlError for what is no image, or damaged.
    """
    count = 0
    for name, digest in layers(files):
        count = await _add_layer(importer, files, name, digest, progress, count)
    return count


def layers(files: Files) -> list[tuple[str, str | None]]:
    """The layers from the lowest up: the name of each one's file, and its digest if it is known."""
    if files.has(LAYOUT):
        manifest = _manifest(files, _document(files, INDEX), 0)
        found = [_digest(layer) for layer in _list(manifest, "layers")]
        return [(_blob(digest), digest) for digest in found]
    images = _json(files, DOCKER)
    if not isinstance(images, list) or len(images) != 1:
        raise UmlError("the archive does not have just one image", "save one image at a time")
    return [(str(name), None) for name in _list(images[0], "Layers")]


def _manifest(files: Files, index: dict[str, Any], depth: int) -> dict[str, Any]:
    """The manifest that an index leads to."""
    choices = [entry for entry in _list(index, "manifests") if isinstance(entry, dict)]
    here = _MACHINES.get(platform.machine(), platform.machine())
    fitting = [entry for entry in choices if (entry.get("platform") or {}).get("architecture") in (here, None)]
    if not fitting or depth > _DEPTH_MAX:
        raise UmlError(f"the image has nothing for {here}", "save it for this machine's architecture")
    if depth == 0 and len(fitting) > 1:
        raise UmlError("the layout has several images", "make one with a single image")
    digest = _digest(fitting[0])
    document = _document(files, _blob(digest), digest)
    return _manifest(files, document, depth + 1) if "manifests" in document else document


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


async def _add_layer(
    importer: Importer, files: Files, name: str, digest: str | None, progress: Callable[[int], None], count: int
) -> int:
    fresh: set[int] = set()
    with files.open(name) as raw:
        hashed = _Hashed(raw, (digest or "sha256:").partition(":")[0])
        with opened(cast(BinaryIO, hashed)) as archive:
            for info in members(archive):
                await _add(importer, archive, info, fresh)
                count += 1
                if not count % 200:
                    progress(count)
                    await trio.lowlevel.checkpoint()
        while hashed.read(_CHUNK):
            pass
    if digest is not None:
        _compare(name, digest.partition(":")[2], hashed.hash.hexdigest())
    return count


async def _add(importer: Importer, archive: tarfile.TarFile, info: tarfile.TarInfo, fresh: set[int]) -> None:
    """One member of a layer; `fresh` are the inodes that the layer has made so far."""
    path = split(os.fsencode(info.name))
    base = path[-1] if path else b""
    if base == OPAQUE:
        await importer.clear(path[:-1], fresh)
    elif base.startswith(WHITEOUT) and len(base) > len(WHITEOUT):
        await importer.remove((*path[:-1], base[len(WHITEOUT) :]))
    elif info.islnk():
        await add_member(importer, archive, info)
        linked = importer.find(path)
        fresh.add(linked.ino if linked is not None else 0)
    else:
        fresh.add(await add_member(importer, archive, info))
