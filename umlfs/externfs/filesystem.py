"""A tree of nodes as a `Filesystem`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

from umlfs.composed import Composed
from umlfs.externfs.attribute_operations import NodeAttributes
from umlfs.externfs.calls import TIME_LIMIT, Calls
from umlfs.externfs.contents import Contents
from umlfs.externfs.directory_operations import NodeDirectories
from umlfs.externfs.file_operations import NodeFiles
from umlfs.externfs.handles import Handles
from umlfs.externfs.inodes import Inodes
from umlfs.externfs.listing import Listing
from umlfs.externfs.name_operations import NodeNames
from umlfs.externfs.node import Directory, Node
from umlfs.filesystem import Invalidator, Traits
from umlfs.lifetime import Tasks


class NodeFilesystem(Composed):
    """The tree below a directory node."""

    def __init__(
        self,
        root: Directory,
        *,
        name: str = "externfs",
        read_only: bool = False,
        traits: Traits | None = None,
        time_limit: float = TIME_LIMIT,
        on_close: Callable[[], object] | None = None,
        tasks: Iterable[Callable[[], Awaitable[object]]] = (),
    ) -> None:
        """`name` is what the log calls the tree; `time_limit` the seconds until a call of a plugin is given up.
        `on_close` lets go of what the nodes use; it is called as their methods are. `tasks` run while it is served."""
        self.traits = traits or Traits(read_only=read_only, shared=True, untold_sizes=True)
        self._calls = Calls(name, time_limit)
        self._inodes = Inodes(root)
        self._handles = handles = Handles(self._calls)
        self._contents, self._listings = handles.contents, handles.listings
        attributes = NodeAttributes(self._calls, self._inodes, handles)
        names = NodeNames(self._calls, self._inodes, handles, attributes)
        self._compose(
            names,
            attributes,
            NodeFiles(self._calls, self._inodes, handles, attributes, names),
            NodeDirectories(self._calls, self._inodes, handles, attributes),
        )
        self._invalidators: list[Invalidator] = []
        self._on_close = on_close
        self._background = tuple(tasks)
        self._tasks = Tasks(name)
        self._left: list[Contents | Listing] = []
        """What a consumer left open that is gone."""

    # Lifetime ---------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with self._tasks.running():
            for task in self._background:
                self._tasks.start(task)
            yield

    @property
    def failure(self) -> OSError | None:
        return self._tasks.failure

    def attach(self, invalidator: Invalidator) -> NodeFilesystem:
        self._invalidators.append(invalidator)
        return self

    def changed(self, node: Node) -> None:
        """Attributes and contents of `node` changed; whoever cached them is told."""
        inode = self._inodes.get(node.key)
        for invalidator in self._invalidators if inode is not None else ():
            invalidator.inode(inode.ino)  # type: ignore[union-attr]

    def renewed(self, directory: Directory, name: str) -> None:
        """`name` in `directory` leads elsewhere, or nowhere."""
        inode = self._inodes.get(directory.key)
        for invalidator in self._invalidators if inode is not None else ():
            invalidator.entry(inode.ino, os.fsencode(name))  # type: ignore[union-attr]

    def disconnect(self) -> None:
        self._left += self._handles.take_all()
        self._inodes.forget_all()
        self._invalidators.clear()
        self._tasks.start(self._close_left)

    async def _close_left(self) -> None:
        while self._left:
            await self._calls(self._left.pop().close)

    async def close(self) -> None:
        """End what is open; what was not committed is dropped."""
        self.disconnect()
        await self._close_left()
        on_close, self._on_close = self._on_close, None
        if on_close is not None:
            await self._calls(on_close)

    def forget(self, ino: int, count: int) -> None:
        self._inodes.forget(ino, count)

    async def syncfs(self) -> None:
        for _, contents in list(self._contents.values()):
            await self._calls(contents.commit)
