"""A remote tree, through fsspec: what is asked of it, in words that cannot lead out of its root.

A path is the root and names that are single components. What expands patterns in paths is never called.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import posixpath
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, Final
from urllib.parse import quote, unquote

from umlfs.host.syscalls import failure

log = logging.getLogger(__name__)

PART: Final = 8 << 20
"""Bytes that are fetched, or sent, in one request."""
_TOLD: Final = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError)
_INFO_SECONDS: Final = 2.0
"""How long what a listing told of a file is believed."""
_INFO_MAX: Final = 100_000

Info = dict[str, Any]


@contextmanager
def saying(path: str) -> Iterator[None]:
    """Errors of the libraries, of which there are many, as OSError: EIO for those of the connection."""
    try:
        yield
    except _TOLD as error:
        raise failure(error.errno or _errno_of(error)) from error
    except NotImplementedError as error:
        raise failure(errno.EOPNOTSUPP) from error
    except Exception as error:
        log.warning("%s: %s: %s", path, type(error).__name__, error)
        raise failure(errno.EIO) from error


def _errno_of(error: OSError) -> int:
    codes: dict[type[OSError], int] = {
        FileNotFoundError: errno.ENOENT,
        FileExistsError: errno.EEXIST,
        IsADirectoryError: errno.EISDIR,
        NotADirectoryError: errno.ENOTDIR,
    }
    return next((code for kind, code in codes.items() if isinstance(error, kind)), errno.EACCES)


class Store:
    """One remote tree."""

    def __init__(self, fs: Any, root: str, *, block: int, blocks: int, writable: bool) -> None:
        self.fs = fs
        self.root = root.rstrip("/")
        self.writable = writable
        self._cache = {"block_size": block, "cache_type": "background", "cache_options": {"maxblocks": blocks}}
        self._infos: dict[str, tuple[Info, float]] = {}
        self._made: set[str] = set()
        """Directories without anything in them, which an object store does not know."""
        protocol = fs.protocol if isinstance(fs.protocol, str) else fs.protocol[0]
        self._is_web = protocol in ("http", "https")
        self._has_links = protocol in ("sftp", "ssh")

    # Paths ------------------------------------------------------------------------------------

    def below(self, path: str, name: str) -> str:
        """The path of `name` in the directory `path`. In a URL no byte of it has a meaning."""
        return f"{path}/{quote(name, safe='') if self._is_web else name}"

    def name_of(self, path: str) -> str:
        name = (
            posixpath.basename(path.split("?")[0].rstrip("/")) if self._is_web else posixpath.basename(path.rstrip("/"))
        )
        return unquote(name) if self._is_web else name

    # What there is ----------------------------------------------------------------------------

    def ls(self, path: str) -> list[tuple[str, Info]]:
        """Names and what is known of each."""
        with saying(path):
            found = self.fs.ls(f"{path}/" if self._is_web else path or "/", detail=True, **self._fresh())
        named = {}
        base = path.rstrip("/")
        for info in found:
            there = str(info["name"]).rstrip("/")
            if self._is_web and not there.startswith(f"{base}/"):
                continue  # a page has links to anywhere
            name = self.name_of(there)
            if there.strip("/") == base.strip("/") or not name or name in (".", "..") or "/" in name:
                continue  # the marker of the directory itself
            named[name] = info
            self._remember(self.below(path, name), info)
        for made in self._made:
            if posixpath.dirname(made) == path:
                named.setdefault(posixpath.basename(made), {"type": "directory"})
        return list(named.items())

    def _fresh(self) -> dict[str, Any]:
        self.fs.invalidate_cache()
        return {}

    def _remember(self, path: str, info: Info) -> None:
        if len(self._infos) >= _INFO_MAX:
            self._infos.clear()
        self._infos[path] = info, time.monotonic()

    def known(self, path: str) -> Info | None:
        """What a listing told of it a moment ago."""
        found = self._infos.get(path)
        return found[0] if found is not None and time.monotonic() - found[1] < _INFO_SECONDS else None

    def info(self, path: str, *, fresh: bool = False) -> Info:
        """What is known of one path. ENOENT."""
        if path in self._made:
            return {"type": "directory"}
        if not fresh and (known := self.known(path)) is not None:
            return known
        with saying(path):
            info = self._lstat(path) if self._has_links else self._info(path)
        self._remember(path, info)
        return info

    def _info(self, path: str) -> Info:
        self.fs.invalidate_cache()
        found: Info = self.fs.info(path)
        if self._is_web and str(found.get("url", "")).endswith("/"):  # where a server leads who names a directory
            return {"type": "directory"}
        return found

    def _lstat(self, path: str) -> Info:
        """Of the link itself: what it leads to may lie anywhere on the server."""
        attributes = self.fs.ftp.lstat(path)
        kinds = {stat.S_IFDIR: "directory", stat.S_IFLNK: "link"}
        return {
            "type": kinds.get(stat.S_IFMT(attributes.st_mode), "file"),
            "size": attributes.st_size,
            "mtime": attributes.st_mtime,
            "mode": attributes.st_mode,
        }

    def readlink(self, path: str) -> str:
        with saying(path):
            return str(self.fs.ftp.readlink(path))

    # Contents ---------------------------------------------------------------------------------

    def open(self, path: str, size: int | None) -> IO[bytes]:
        """For reading, with a cache of blocks."""
        with saying(path):
            known = {"size": size} if size is not None and self._is_web else {}
            found: IO[bytes] = self.fs.open(path, "rb", **self._cache, **known)
            return found

    def send(self, path: str, file: IO[bytes]) -> None:
        """Make the file what `file` has from here on, in parts."""
        with saying(path), self.fs.open(path, "wb", block_size=PART) as target:
            while data := file.read(PART):
                target.write(data)
        self.forget(path)
        self._made.discard(posixpath.dirname(path))

    def fetch(self, path: str, file: IO[bytes]) -> None:
        """All of a file into `file`."""
        with saying(path), self.fs.open(path, "rb", **self._cache) as source:
            while data := source.read(PART):
                file.write(data)

    # Changes ----------------------------------------------------------------------------------

    def forget(self, path: str) -> None:
        """It changed."""
        self._infos.pop(path, None)
        self.fs.invalidate_cache()

    def remove(self, path: str) -> None:
        with saying(path):
            self.fs.rm_file(path)
        self.forget(path)
        self._keep_directory(path)

    def _keep_directory(self, path: str) -> None:
        """The last object is gone; the directory it was in is there until it is removed."""
        above = posixpath.dirname(path)
        if above != self.root and not self.fs.isdir(above):
            self._made.add(above)

    def mkdir(self, path: str) -> None:
        with saying(path):
            self.fs.mkdir(path, create_parents=False)
            if not self.fs.isdir(path):
                self._made.add(path)

    def rmdir(self, path: str) -> None:
        """ENOTEMPTY."""
        if self._names(path):
            raise failure(errno.ENOTEMPTY)
        if path not in self._made and self.fs.isdir(path):  # that of an object store goes with its last object
            with saying(path):
                self.fs.rmdir(path)
        self._made.discard(path)
        self.forget(path)

    def close(self) -> None:
        """Let go of the connections."""
        with contextlib.suppress(Exception):
            if hasattr(self.fs, "ftp"):
                self.fs.ftp.close()
                self.fs.client.close()
            self._close_sessions(self.fs)

    def _close_sessions(self, fs: Any) -> None:
        """Of it, and of what it is read from."""
        for name in ("_session", "_s3"):
            session = getattr(fs, name, None)
            if session is not None and hasattr(fs, "close_session"):
                type(fs).close_session(fs.loop, session)
        if (inner := getattr(fs, "fo", None)) is not None:
            inner.close()
            self._close_sessions(inner.fs)

    def _names(self, path: str) -> list[tuple[str, Info]]:
        try:
            return self.ls(path)
        except FileNotFoundError:
            return []

    def move(self, path: str, to: str) -> None:
        """A file; where the store cannot rename, by a copy on its side."""
        from fsspec.spec import AbstractFileSystem

        with saying(path):
            if self._has_links:
                self.fs.ftp.posix_rename(path, to)
            else:
                assert isinstance(self.fs, AbstractFileSystem)
                self.fs.cp_file(path, to)
                self.fs.rm_file(path)
        self.forget(path)
        self.forget(to)
