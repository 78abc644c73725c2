"""The nodes of a remote tree."""

from __future__ import annotations

import datetime
import errno
import os
import stat
import threading
from collections.abc import Hashable, Iterator
from typing import IO, Any, Final

import trio

from umlfs.externfs.calls import instant
from umlfs.externfs.contents import Contents
from umlfs.externfs.fs.store import PART, Info, Store, saying
from umlfs.externfs.node import Attributes, Child, Directory, File, Link, Node
from umlfs.externfs.spool import Gathered, Spooled
from umlfs.filesystem import Caller
from umlfs.host.syscalls import failure

_SIZE_MAX: Final = 64 << 30
_VALID_NS: Final = 10**9


def _mtime(info: Info) -> int | None:
    """When it was changed, by whichever name a store has for that."""
    for name in ("mtime", "LastModified", "last_modified", "updated", "modified", "date_time"):
        found = info.get(name)
        if isinstance(found, datetime.datetime):
            return int(found.timestamp() * 1e9)
        if isinstance(found, int | float):
            return int(found * 1e9)
    return None


def _size(info: Info) -> int | None:
    size = info.get("size")
    return size if isinstance(size, int) and size >= 0 else None


def _permissions(info: Info, writable: bool) -> int:
    """What the store says, if it has modes; else all may be run, as in the filesystems of other systems."""
    mode = info.get("mode")
    usual = 0o755 if info["type"] != "link" else 0o777
    return (stat.S_IMODE(mode) if isinstance(mode, int) else usual) & (0o7777 if writable else 0o7555)


def node_of(store: Store, path: str, info: Info) -> Node:
    """What is at a path."""
    if info["type"] == "directory":
        return RemoteDirectory(store, path, info)
    if info["type"] == "link":
        return RemoteLink(store, path, info)
    return RemoteFile(store, path, info)


class RemoteDirectory(Directory):
    """A directory, or the common beginning of some keys."""

    __slots__ = ("_info", "_store", "path")
    valid_ns = _VALID_NS

    def __init__(self, store: Store, path: str, info: Info) -> None:
        self._store, self.path, self._info = store, path, info

    @property
    def key(self) -> Hashable:
        return self.path, "directory"

    @instant
    async def attributes(self) -> Attributes:
        return Attributes(_permissions(self._info, self._store.writable), 0, _mtime(self._info))

    def children(self) -> list[Child]:
        store = self._store
        return [(name, node_of(store, store.below(self.path, name), info)) for name, info in store.ls(self.path)]

    def lookup(self, name: str) -> Node:
        path = self._store.below(self.path, name)
        return node_of(self._store, path, self._store.info(path))

    def create(self, name: str, mode: int, caller: Caller) -> Node:
        path = self._store.below(self.path, name)
        with open(os.devnull, "rb") as nothing:
            self._store.send(path, nothing)
        return RemoteFile(self._store, path, {"type": "file", "size": 0})

    def mkdir(self, name: str, mode: int, caller: Caller) -> Node:
        path = self._store.below(self.path, name)
        self._store.mkdir(path)
        return RemoteDirectory(self._store, path, {"type": "directory"})

    def remove(self, name: str, node: Node) -> None:
        path = self._store.below(self.path, name)
        if isinstance(node, Directory):
            self._store.rmdir(path)
        else:
            self._store.remove(path)

    def rename(self, name: str, node: Node, to: Directory, new_name: str, replaced: Node | None) -> None:
        """Files alone: a directory of an object store is copied by who moves it."""
        if not isinstance(node, RemoteFile) or not isinstance(to, RemoteDirectory):
            raise failure(errno.EXDEV)
        self._store.move(node.path, self._store.below(to.path, new_name))


class RemoteLink(Link):
    """A symbolic link of the server's; who uses the tree follows it there."""

    __slots__ = ("_path", "_store")

    def __init__(self, store: Store, path: str, info: Info) -> None:
        super().__init__(os.fsencode(store.readlink(path)))
        self._path = path

    @property
    def key(self) -> Hashable:
        return self._path, "link"


class RemoteFile(File):
    """A file, or an object."""

    __slots__ = ("_info", "_store", "path")
    valid_ns = _VALID_NS

    def __init__(self, store: Store, path: str, info: Info) -> None:
        self._store, self.path, self._info = store, path, info

    @property
    def key(self) -> Hashable:
        return self.path, "file"

    @property
    def listed(self) -> bool:  # type: ignore[override]
        """A web server's listing tells no size: who wants to know it asks for this file."""
        return _size(self._info) is not None

    async def attributes(self) -> Attributes:
        known = self._store.known(self.path)
        if known is None or _size(known) is None:
            known = await trio.to_thread.run_sync(lambda: self._store.info(self.path, fresh=True))
        self._info = known
        return Attributes(_permissions(self._info, self._store.writable), _size(self._info) or 0, _mtime(self._info))

    def open(self, flags: int) -> Contents:
        if flags & os.O_ACCMODE != os.O_RDONLY:
            return Sending(self._store, self.path, flags)
        size = _size(self._store.info(self.path, fresh=True))
        file = self._store.open(self.path, size)
        return Reading(self._store, self.path, file, size) if size is not None else Spooled(_pieces(file), file.close)


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    while data := file.read(PART):
        yield data


class Reading(Contents):
    """A file read in blocks that are kept. After a broken connection the next read connects again."""

    def __init__(self, store: Store, path: str, file: IO[bytes], size: int) -> None:
        self._store, self._path, self._size = store, path, size
        self._file: Any = file
        self._lock = threading.Lock()

    @instant
    async def size(self) -> int:
        return self._size

    def read(self, offset: int, length: int) -> bytes:
        length = min(length, self._size - offset)
        if length <= 0:
            return b""
        with self._lock:
            if self._file is None:
                self._file = self._store.open(self._path, self._size)
            try:
                with saying(self._path):
                    self._file.seek(offset)
                    data: bytes = self._file.read(length)
                    if len(data) != length:
                        raise ConnectionError(f"{len(data)} bytes instead of {length}")
                    return data
            except OSError:
                self._file = None
                raise

    def close(self) -> None:
        with self._lock:
            if self._file is not None:
                self._file.close()


class Sending(Gathered):
    """What is written, sent when it is committed."""

    def __init__(self, store: Store, path: str, flags: int) -> None:
        super().__init__(self._send, _SIZE_MAX)
        self._store, self._path = store, path
        self._is_loaded = bool(flags & os.O_TRUNC)

    def _send(self, file: IO[bytes]) -> None:
        self._store.send(self._path, file)

    def _load(self) -> None:
        """What is there, unless all of it is to go."""
        with self._loading:
            if not self._is_loaded:
                self._store.fetch(self._path, self._file)
                self._is_loaded = True

    @property
    def _loading(self) -> threading.Lock:
        return self._lock

    def size(self) -> int:
        self._load()
        return super().size()

    def read(self, offset: int, length: int) -> bytes:
        self._load()
        return super().read(offset, length)

    def write(self, offset: int, data: bytes) -> None:
        self._load()
        super().write(offset, data)

    def truncate(self, size: int) -> None:
        if size:
            self._load()
        self._is_loaded = True
        super().truncate(size)
