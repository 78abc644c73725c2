"""A tree of nodes as a `Filesystem`."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Final

from umlfs.buffers import scatter, total
from umlfs.externfs.calls import TIME_LIMIT, Calls
from umlfs.externfs.contents import Budget, Contents
from umlfs.externfs.inodes import Inode, Inodes
from umlfs.externfs.listing import Listing, search
from umlfs.externfs.node import Attributes, Directory, File, Link, Node
from umlfs.externfs.opening import has, opened, whole
from umlfs.filesystem import (
    NAME_MAX,
    NO_HANDLE,
    NOW,
    ROOT,
    Attr,
    Caller,
    DirSink,
    Entry,
    Filesystem,
    Invalidator,
    Opened,
    SetAttr,
    StatFs,
    Traits,
)
from umlfs.host.syscalls import failure
from umlfs.lifetime import Tasks

_NOREPLACE, _EXCHANGE = 1, 2
_BUDGET: Final = 256 << 20
"""Bytes that may be written and not yet committed."""
_HANDLES_MAX: Final = 1 << 16


class NodeFilesystem(Filesystem):
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
        self._budget = Budget(_BUDGET)
        self._contents: dict[int, tuple[Inode, Contents]] = {}
        self._listings: dict[int, tuple[Inode, Listing]] = {}
        self._last_handle = 0
        self._since = time.time_ns()
        self._owner = os.geteuid(), os.getegid()
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
        self._left += [contents for _, contents in self._contents.values()]
        self._left += [listing for _, listing in self._listings.values()]
        self._contents.clear()
        self._listings.clear()
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

    # Names ------------------------------------------------------------------------------------

    def _directory(self, ino: int) -> tuple[Inode, Directory]:
        inode = self._inodes[ino]
        if not isinstance(inode.node, Directory):
            raise failure(errno.ENOTDIR)
        return inode, inode.node

    def _place(self, ino: int, name: bytes) -> tuple[Inode, Directory, str]:
        """A directory, and a name as a plugin gets it."""
        inode, directory = self._directory(ino)
        if len(name) > NAME_MAX:
            raise failure(errno.ENAMETOOLONG)
        if name in (b"", b".", b"..") or b"/" in name or b"\0" in name:  # no plugin is to see what leads elsewhere
            raise failure(errno.ENOENT)
        return inode, directory, os.fsdecode(name)

    async def _child(self, inode: Inode, directory: Directory, name: str) -> Node:
        if inode.removed:
            raise failure(errno.ENOENT)
        if has(directory, Directory, "lookup"):
            node: Node = await self._calls(directory.lookup, name)
            return node
        return await search(self._calls, directory, name)

    async def _absent(self, inode: Inode, directory: Directory, name: str) -> None:
        """EEXIST if the name is taken."""
        try:
            await self._child(inode, directory, name)
        except FileNotFoundError:
            if inode.removed:
                raise
            return
        raise failure(errno.EEXIST)

    async def _entry(self, parent: Inode, node: Node) -> Entry:
        known = self._inodes.get(node.key)
        attr = await self._attr(node, known)
        inode = self._inodes.count(node, parent)
        attr.ino = inode.number
        return Entry(inode.ino, attr, node.valid_ns, node.valid_ns)

    async def lookup(self, parent: int, name: bytes) -> Entry:
        inode, directory, text = self._place(parent, name)
        return await self._entry(inode, await self._child(inode, directory, text))

    def forget(self, ino: int, count: int) -> None:
        self._inodes.forget(ino, count)

    async def mknod(self, parent: int, name: bytes, mode: int, rdev: int, umask: int, caller: Caller) -> Entry:
        inode, directory, text = self._place(parent, name)
        await self._absent(inode, directory, text)
        if stat.S_ISREG(mode):
            return await self._entry(inode, await self._calls(directory.create, text, stat.S_IMODE(mode), caller))
        return await self._entry(inode, await self._calls(directory.mknod, text, mode, rdev, caller))

    async def mkdir(self, parent: int, name: bytes, mode: int, umask: int, caller: Caller) -> Entry:
        inode, directory, text = self._place(parent, name)
        await self._absent(inode, directory, text)
        return await self._entry(inode, await self._calls(directory.mkdir, text, mode, caller))

    async def symlink(self, parent: int, name: bytes, target: bytes, caller: Caller) -> Entry:
        inode, directory, text = self._place(parent, name)
        await self._absent(inode, directory, text)
        return await self._entry(inode, await self._calls(directory.symlink, text, target, caller))

    async def readlink(self, ino: int) -> bytes:
        node = self._inodes[ino].node
        if not isinstance(node, Link):
            raise failure(errno.EINVAL)
        return node.target

    async def link(self, ino: int, new_parent: int, new_name: bytes) -> Entry:
        inode, directory, text = self._place(new_parent, new_name)
        node = self._inodes[ino].node
        if isinstance(node, Directory):
            raise failure(errno.EPERM)
        await self._absent(inode, directory, text)
        await self._calls(directory.link, text, node)
        return await self._entry(inode, node)

    async def unlink(self, parent: int, name: bytes) -> None:
        inode, directory, text = self._place(parent, name)
        node = await self._child(inode, directory, text)
        if isinstance(node, Directory):
            raise failure(errno.EISDIR)
        await self._remove(inode, directory, name, text, node)

    async def rmdir(self, parent: int, name: bytes) -> None:
        inode, directory, text = self._place(parent, name)
        node = await self._child(inode, directory, text)
        if not isinstance(node, Directory):
            raise failure(errno.ENOTDIR)
        await self._remove(inode, directory, name, text, node)

    async def _remove(self, inode: Inode, directory: Directory, name: bytes, text: str, node: Node) -> None:
        await self._calls(directory.remove, text, node)
        await self._gone(inode, name, node)

    async def _gone(self, parent: Inode, name: bytes, node: Node) -> None:
        """`node` lost the name; perhaps its last one."""
        for listed, listing in self._listings.values():
            if listed is parent:
                listing.drop(name)
        if isinstance(node, Directory) or node.key is not node or (await self._attributes(node)).nlink < 1:
            self._inodes.remove(node)

    async def rename(self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int = 0) -> None:
        inode, directory, text = self._place(parent, name)
        target, to, new_text = self._place(new_parent, new_name)
        if flags & ~(_NOREPLACE | _EXCHANGE) or flags == _NOREPLACE | _EXCHANGE:
            raise failure(errno.EINVAL)
        node = await self._child(inode, directory, text)
        other = await self._replaced(target, to, new_text)
        if flags & _EXCHANGE:
            if other is None:
                raise failure(errno.ENOENT)
            await self._calls(directory.exchange, text, node, to, new_text, other)
            await self._moved(node, target, to, new_text)
            await self._moved(other, inode, directory, text)
            return
        if other is not None:
            if flags & _NOREPLACE:
                raise failure(errno.EEXIST)
            if other.key == node.key:
                return
            _check_replaceable(node, other)
        await self._calls(directory.rename, text, node, to, new_text, other)
        if other is not None:
            await self._gone(target, new_name, other)
        await self._moved(node, target, to, new_text)

    async def _replaced(self, target: Inode, to: Directory, name: str) -> Node | None:
        try:
            return await self._child(target, to, name)
        except FileNotFoundError:
            if target.removed:
                raise
            return None

    async def _moved(self, node: Node, target: Inode, to: Directory, name: str) -> None:
        """A node whose key is its place is another one now; the inode stays."""
        if node.key is node:
            self._inodes.move(node, node, target)
        elif self._inodes.get(node.key) is not None:
            self._inodes.move(node, await self._child(target, to, name), target)

    # Attributes -------------------------------------------------------------------------------

    async def _attributes(self, node: Node) -> Attributes:
        found: Attributes = await self._calls(node.attributes)
        if isinstance(node, File) and not has(node, Node, "attributes"):
            found.size = await self._file_size(node)
        return found

    async def _file_size(self, file: File) -> int:
        if file.size is not None:
            return max(file.size, 0)
        if has(file, File, "open") or has(file, File, "read_at") or not has(file, File, "read"):
            return 0
        return len(await whole(self._calls, file))

    async def _attr(self, node: Node, inode: Inode | None) -> Attr:
        """The attributes of a node, known as `inode` or not yet."""
        found = await self._attributes(node)
        size = found.size if inode is None else await self._present_size(inode, found.size)
        nlink = found.nlink
        if inode is not None and inode.removed:
            nlink = min(nlink, 0)
        mtime = self._since if found.mtime_ns is None else found.mtime_ns
        return Attr(
            inode.number if inode is not None else 0,
            node.kind | found.mode,
            nlink,
            self._owner[0] if found.uid is None else found.uid,
            self._owner[1] if found.gid is None else found.gid,
            found.rdev,
            size,
            -(-size // 512) if found.blocks is None else found.blocks,
            mtime if found.atime_ns is None else found.atime_ns,
            mtime,
            mtime if found.ctime_ns is None else found.ctime_ns,
        )

    async def _present_size(self, inode: Inode, size: int) -> int:
        """What is being written counts already: an appending consumer goes by it."""
        if inode.written is not None:
            return int(await self._calls(inode.written.size))
        return size or inode.opened_size or 0

    async def getattr(self, ino: int, handle: int = NO_HANDLE) -> tuple[Attr, int]:
        inode = self._inodes[ino]
        return await self._attr(inode.node, inode), inode.node.valid_ns

    async def setattr(
        self, ino: int, changes: SetAttr, handle: int = NO_HANDLE, caller: Caller | None = None
    ) -> tuple[Attr, int]:
        inode = self._inodes[ino]
        node = inode.node
        if changes.size is not None:
            await self._truncate(inode, changes.size, handle)
        if node.changeable:
            await self._calls(node.change, changes)
        else:
            await self._unchanged(inode, changes)
        return await self.getattr(ino, handle)

    async def _unchanged(self, inode: Inode, changes: SetAttr) -> None:
        """EPERM unless `changes` ask for what there is; a change of times to the present may be asked of anything."""
        now = await self._attr(inode.node, inode)
        differs = (
            changes.mode not in (None, stat.S_IMODE(now.mode)),
            changes.uid not in (None, now.uid),
            changes.gid not in (None, now.gid),
            changes.atime_ns not in (None, NOW, now.atime_ns),
            changes.mtime_ns not in (None, NOW, now.mtime_ns),
        )
        if any(differs):
            raise failure(errno.EPERM)

    async def _truncate(self, inode: Inode, size: int, handle: int) -> None:
        if handle in self._contents:
            contents = self._contents[handle][1]
            await self._calls(contents.truncate, size)
            self._written(inode, contents)
            return
        if inode.writers:  # one that was just opened to be written anew: not to be emptied before it is
            for contents in inode.writers:
                await self._calls(contents.truncate, size)
                self._written(inode, contents)
            return
        contents = await self._open(inode, os.O_RDWR)
        try:
            await self._calls(contents.truncate, size)
            await self._calls(contents.commit)
        finally:
            await self._calls(contents.close)

    @staticmethod
    def _written(inode: Inode, contents: Contents) -> None:
        if not contents.stream:
            inode.written = contents

    async def statfs(self, ino: int = ROOT) -> StatFs:
        self._inodes[ino]
        return StatFs()

    # Files ------------------------------------------------------------------------------------

    async def _open(self, inode: Inode, flags: int) -> Contents:
        node = inode.node
        if isinstance(node, Directory):
            raise failure(errno.EISDIR)
        if not isinstance(node, File):
            raise failure(errno.EINVAL)
        return await opened(self._calls, node, flags, self._budget)

    def _handle(self) -> int:
        """A new one. ENFILE: a guest opens and never closes."""
        if len(self._contents) + len(self._listings) >= _HANDLES_MAX:
            raise failure(errno.ENFILE)
        self._last_handle += 1
        return self._last_handle

    async def open(self, ino: int, flags: int) -> Opened:
        inode = self._inodes[ino]
        handle = self._handle()
        contents = await self._open(inode, flags)
        self._contents[handle] = inode, contents
        if flags & os.O_ACCMODE != os.O_RDONLY:
            inode.writers = (*inode.writers, contents)
        if flags & os.O_TRUNC:
            await self._calls(contents.truncate, 0)
            self._written(inode, contents)
        if not contents.direct and flags & os.O_ACCMODE == os.O_RDONLY:
            await self._remember_size(inode, contents)
        return Opened(handle, direct=contents.direct, stream=contents.stream)

    async def _remember_size(self, inode: Inode, contents: Contents) -> None:
        """A kernel that asks again, as fstat(2) does, is told what a reader gets."""
        node = inode.node
        if isinstance(node, File) and node.size == -1:
            inode.opened_size = await self._calls(contents.size)

    async def create(
        self, parent: int, name: bytes, mode: int, flags: int, umask: int, caller: Caller
    ) -> tuple[Entry, Opened]:
        inode, directory, text = self._place(parent, name)
        try:
            node = await self._child(inode, directory, text)
        except FileNotFoundError:
            if inode.removed:
                raise
            node = await self._calls(directory.create, text, mode, caller)
        else:
            if flags & os.O_EXCL:
                raise failure(errno.EEXIST)
        if isinstance(node, Directory):
            raise failure(errno.EISDIR)
        entry = await self._entry(inode, node)
        try:
            opening = await self.open(entry.ino, flags)
            entry.attr = (await self.getattr(entry.ino))[0]
        except OSError:
            self.forget(entry.ino, 1)
            raise
        return entry, opening

    def _opened(self, handle: int) -> tuple[Inode, Contents]:
        try:
            return self._contents[handle]
        except KeyError:
            raise failure(errno.EBADF) from None

    async def read_into(self, ino: int, handle: int, offset: int, buffers: Sequence[memoryview]) -> int:
        contents = self._opened(handle)[1]
        return scatter(await self._calls(contents.read, offset, total(buffers)), buffers)

    async def write_from(
        self, ino: int, handle: int, offset: int, buffers: Sequence[memoryview], kill_set_id: bool = False
    ) -> int:
        inode, contents = self._opened(handle)
        data = bytes(buffers[0]) if len(buffers) == 1 else b"".join(buffers)
        if not data:
            return 0
        done = await self._calls(contents.write, offset, data)
        self._written(inode, contents)
        if kill_set_id and inode.node.changeable:
            await self._calls(inode.node.change, SetAttr(kill_set_id=True))
        return len(data) if done is None else done

    async def flush(self, ino: int, handle: int) -> None:
        await self.fsync(ino, handle)

    async def fsync(self, ino: int, handle: int, data_only: bool = False) -> None:
        await self._calls(self._opened(handle)[1].commit)

    async def release(self, ino: int, handle: int) -> None:
        found = self._contents.pop(handle, None)
        if found is not None:
            inode, contents = found
            if inode.written is contents:
                inode.written = None
            inode.writers = tuple(one for one in inode.writers if one is not contents)
            await self._calls(contents.close)

    async def lseek(self, ino: int, handle: int, offset: int, whence: int) -> int:
        """All of a file is data."""
        size = await self._calls(self._opened(handle)[1].size)
        if offset >= size:
            raise failure(errno.ENXIO)
        return offset if whence == os.SEEK_DATA else int(size)

    async def syncfs(self) -> None:
        for _, contents in list(self._contents.values()):
            await self._calls(contents.commit)

    # Directories ------------------------------------------------------------------------------

    async def opendir(self, ino: int) -> Opened:
        inode, directory = self._directory(ino)
        handle = self._handle()
        self._listings[handle] = inode, Listing(self._calls, directory)
        return Opened(handle)

    async def readdir(self, ino: int, handle: int, offset: int, add: DirSink, plus: bool = False) -> None:
        """Offsets 1 and 2 are those after `.` and `..`."""
        inode, _ = self._directory(ino)
        if handle not in self._listings:
            raise failure(errno.EBADF)
        if offset < 1 and not add(b".", 1, inode.number, stat.S_IFDIR, None):
            return
        if offset < 2 and not add(b"..", 2, inode.parent_number, stat.S_IFDIR, None):
            return
        if inode.removed:
            return
        listing = self._listings[handle][1]
        position = max(offset - 2, 0)
        while entries := await listing.entries(position):
            for item in entries:
                position += 1
                if item is not None and not await self._add(inode, *item, position + 2, add, plus):
                    return

    async def _add(self, parent: Inode, name: bytes, node: Node, offset: int, add: DirSink, plus: bool) -> bool:
        """Offer one name; whether there was room for it."""
        entry = None
        if plus and node.listed:
            with contextlib.suppress(OSError):  # it vanished meanwhile, or is out of order; who looks it up is told
                entry = await self._entry(parent, node)
        taken = add(name, offset, self._inodes.number(node), node.kind, entry)
        if entry is not None and not taken:
            self._inodes.forget(entry.ino, 1)
        return taken

    async def releasedir(self, ino: int, handle: int) -> None:
        found = self._listings.pop(handle, None)
        if found is not None:
            await found[1].close()

    async def fsyncdir(self, ino: int, handle: int, data_only: bool = False) -> None:
        """Names are made and removed at once."""


def _check_replaceable(node: Node, other: Node) -> None:
    """EISDIR, ENOTDIR."""
    if isinstance(other, Directory) and not isinstance(node, Directory):
        raise failure(errno.EISDIR)
    if isinstance(node, Directory) and not isinstance(other, Directory):
        raise failure(errno.ENOTDIR)
