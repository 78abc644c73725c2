"""Walking through trees."""

from __future__ import annotations

import heapq
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from runtime.inspect.paths import root_of
from runtime.inspect.walk import walk
from umlfs.filesystem import FOREVER, ROOT, Attr, DirSink, Entry, Filesystem, Opened
from umlfs.sources import parse

BREADTH = 3
DEPTH = 4


@dataclass
class _Node:
    depth: int
    lookups: int = 0


@dataclass
class Thrifty(Filesystem):
    """Directories in directories. A number that was given back is the next that is given out."""

    nodes: dict[int, _Node] = field(default_factory=lambda: {ROOT: _Node(0)})
    free: list[int] = field(default_factory=list)

    def entry(self, depth: int) -> Entry:
        ino = heapq.heappop(self.free) if self.free else len(self.nodes) + 1
        self.nodes[ino] = _Node(depth, 1)
        return Entry(ino, self.attr(ino), FOREVER, FOREVER)

    def attr(self, ino: int) -> Attr:
        return Attr(ino, stat.S_IFDIR | 0o755, 2, 0, 0, 0, 0, 0, 0, 0, 0)

    async def getattr(self, ino: int, handle: int = 0) -> tuple[Attr, int]:
        return self.attr(ino), FOREVER

    def forget(self, ino: int, count: int) -> None:
        assert self.nodes.pop(ino).lookups == count
        heapq.heappush(self.free, ino)

    async def opendir(self, ino: int) -> Opened:
        return Opened()

    async def releasedir(self, ino: int, handle: int) -> None:
        pass

    async def readdir(self, ino: int, handle: int, offset: int, add: DirSink, plus: bool = False) -> None:
        depth = self.nodes[ino].depth + 1
        for number in range(offset, BREADTH if depth <= DEPTH else 0):
            entry = self.entry(depth)
            assert add(b"%d" % number, number + 1, entry.ino, stat.S_IFDIR, entry)


async def test_numbers_that_are_given_out_again() -> None:
    """Are no circles."""
    tree = Thrifty()
    found = [(each.node.path, each.failure) async for each in walk(tree, await root_of(tree))]
    assert len(found) == sum(BREADTH**depth for depth in range(DEPTH + 1))
    assert all(failure is None for _, failure in found)
    assert found == sorted(found)
    assert list(tree.nodes) == [ROOT]


async def test_a_directory_that_is_listed_in_pieces(tmp_path: Path) -> None:
    """As a directory of this host is, which was not read for a while."""
    names = {b"%d" % number * 20 for number in range(1000)}
    for name in names:
        (tmp_path / os.fsdecode(name)).touch()
    filesystem = await parse(f"hostfs:{tmp_path}").filesystem()
    async for directory in walk(filesystem, await root_of(filesystem)):
        assert {node.name for node in directory.children} == names
    await filesystem.close()
