"""The tree of several sources: each by its name, and `every/` for all at once."""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Callable, Hashable, Mapping

from umlfs.externfs.all.inner import InnerDirectory, InnerFile
from umlfs.externfs.node import Child, Directory, File, Node, Text
from umlfs.filesystem import Caller
from umlfs.host.syscalls import failure

EVERY = "every"
OUTCOME = "outcome"
_OUTCOME_MAX = 1 << 20


class Outcome:
    """What became of the last things done to all, a line for each source."""

    def __init__(self) -> None:
        self.text = ""

    async def of(self, what: str, work: Mapping[str, Callable[[], Awaitable[object]]]) -> None:
        """Do all of it, whatever fails; then the first error is raised."""
        first: OSError | None = None
        for label, call in work.items():
            try:
                await call()
                said = "done"
            except OSError as error:
                first, said = first or error, error.strerror or "failed"
            self.text = f"{self.text}{label}: {what}: {said}\n"[-_OUTCOME_MAX:]
        if first is not None:
            raise failure(first.errno or errno.EIO)


class Root(Directory):
    """The sources, `every`, and the `outcome` of what was done in that."""

    def __init__(self, sources: Mapping[str, InnerDirectory], writable: bool) -> None:
        self._sources, self._writable, self._outcome = sources, writable, Outcome()

    async def children(self) -> list[Child]:
        text = self._outcome.text
        every = Every(self._sources, "", self._outcome, self._writable)
        return [*self._sources.items(), (EVERY, every), (OUTCOME, Text(text, ("outcome", text)))]


class Every(Directory):
    """A directory of all sources that have it: all their names."""

    def __init__(self, places: Mapping[str, InnerDirectory], path: str, outcome: Outcome, writable: bool) -> None:
        self._places, self._path, self._outcome, self._writable = places, path, outcome, writable
        self.mode = 0o755 if writable else 0o555

    @property
    def key(self) -> Hashable:
        return EVERY, self._path

    async def _there(self, name: str) -> dict[str, Node]:
        """What has that name, by source."""
        found: dict[str, Node] = {}
        for label, place in self._places.items():
            try:
                found[label] = await place.lookup(name)
            except FileNotFoundError:
                continue
        return found

    async def lookup(self, name: str) -> Node:
        found = await self._there(name)
        if not found:
            raise failure(errno.ENOENT)
        return self._merged(name, found)

    def _merged(self, name: str, found: Mapping[str, Node]) -> Node:
        path = f"{self._path}/{name}"
        directories = {label: one for label, one in found.items() if isinstance(one, InnerDirectory)}
        if directories:
            return Every(directories, path, self._outcome, self._writable)
        files = {label: one for label, one in found.items() if isinstance(one, InnerFile)}
        if files:
            return EveryFile(files, path, self._outcome, self._writable)
        return next(iter(found.values()))

    async def children(self) -> list[Child]:
        names: dict[str, dict[str, Node]] = {}
        for label, place in self._places.items():
            async for name, node in await place.children():
                names.setdefault(name, {})[label] = node
        return [(name, self._merged(name, found)) for name, found in names.items()]

    async def remove(self, name: str, node: Node) -> None:
        """In every source that has it."""
        found = await self._there(name)
        work = {label: self._removal(self._places[label], name, one) for label, one in found.items()}
        await self._outcome.of(f"remove {self._path}/{name}", work)

    @staticmethod
    def _removal(place: InnerDirectory, name: str, node: Node) -> Callable[[], Awaitable[object]]:
        return lambda: place.remove(name, node)

    async def mkdir(self, name: str, mode: int, caller: Caller) -> Node:
        work = {label: self._making(place, name, mode, caller) for label, place in self._places.items()}
        await self._outcome.of(f"make {self._path}/{name}", work)
        return await self.lookup(name)

    @staticmethod
    def _making(place: InnerDirectory, name: str, mode: int, caller: Caller) -> Callable[[], Awaitable[object]]:
        return lambda: place.mkdir(name, mode, caller)

    async def create(self, name: str, mode: int, caller: Caller) -> Node:
        work = {label: self._creating(place, name, mode, caller) for label, place in self._places.items()}
        await self._outcome.of(f"create {self._path}/{name}", work)
        return await self.lookup(name)

    @staticmethod
    def _creating(place: InnerDirectory, name: str, mode: int, caller: Caller) -> Callable[[], Awaitable[object]]:
        return lambda: place.create(name, mode, caller)


class EveryFile(File):
    """A file of all sources that have it: each source's contents behind a line with its name, or the contents alone
    where all have the same. What is written is written to all."""

    def __init__(self, files: Mapping[str, InnerFile], path: str, outcome: Outcome, writable: bool) -> None:
        self._files, self._path, self._outcome = files, path, outcome
        self.mode = 0o644 if writable else 0o444

    @property
    def key(self) -> Hashable:
        return EVERY, self._path

    async def read(self) -> bytes:
        found: dict[str, bytes] = {}
        for label, file in self._files.items():
            found[label] = await _read(file)
        if len(set(found.values())) == 1:
            return next(iter(found.values()))
        return b"".join(b"==> %s <==\n%s\n" % (label.encode(), data) for label, data in found.items())

    async def write(self, data: bytes) -> None:
        work = {label: self._writing(file, data) for label, file in self._files.items()}
        await self._outcome.of(f"write {self._path}", work)

    @staticmethod
    def _writing(file: InnerFile, data: bytes) -> Callable[[], Awaitable[object]]:
        return lambda: _write(file, data)


async def _read(file: InnerFile) -> bytes:
    """EFBIG for one that is too long to be shown with others."""
    contents = await file.open(os.O_RDONLY)
    try:
        found = b""
        while data := await contents.read(len(found), 1 << 16):  # type: ignore[misc]
            found += bytes(data)
            if len(found) > file.size_max:
                raise failure(errno.EFBIG)
        return found
    finally:
        await contents.close()  # type: ignore[misc]


async def _write(file: InnerFile, data: bytes) -> None:
    contents = await file.open(os.O_WRONLY)
    try:
        await contents.truncate(0)  # type: ignore[misc]
        done = 0
        while done < len(data):
            done += await contents.write(done, data[done:])  # type: ignore[misc]
        await contents.commit()  # type: ignore[misc]
    finally:
        await contents.close()  # type: ignore[misc]
