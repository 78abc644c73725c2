"""Filling a humfs from outside: files with any owner and type, made by an ordinary user.

An interrupt (Ctrl-C) comes through between two members, or while contents are read: what there is of each file, the
database knows.

What is there already is replaced, directories excepted, which are added to: as tar does, and as the layers of an
image lie on each other. A symlink on the way to a name is followed within the guest's own tree.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import BinaryIO, Final

import trio

from humfs import acl
from humfs.filesystem import HumFilesystem
from humfs.inodes import Inode
from humfs.losses import Losses
from humfs.whole import Making
from umlfs.blocks import sparse
from umlfs.errors import UmlError
from umlfs.filesystem import ROOT, Caller
from umlfs.host.syscalls import failure

SYMLINKS_MAX: Final = 40
"""How many symlinks a path may lead through, as in Linux."""
CHUNK: Final = 1 << 20

Path = tuple[bytes, ...]


@dataclass(slots=True)
class Member:
    """One file to make."""

    path: Path
    mode: int
    """Type and permission bits."""
    uid: int = 0
    gid: int = 0
    rdev: int = 0
    atime_ns: int | None = None
    mtime_ns: int = 0
    target: bytes = b""
    """Of a symlink."""
    xattrs: Sequence[tuple[bytes, bytes]] = ()
    size: int = 0
    contents: BinaryIO | None = None
    """Of a regular file; or else"""
    source: tuple[int, int] | None = None
    """a descriptor and an offset in it, to be copied by the kernel."""
    ranges: Sequence[tuple[int, int]] | None = None
    """Of a file with holes: where (offset, length) the contents go, which are all there is of it. They ascend."""
    stored: int = 0
    """Bytes of the contents in the archive."""
    link: Path | None = None
    """Of a further name: the file that it is one of. Nothing else but the path counts then."""


def split(path: bytes) -> Path:
    """The components of a path from an archive: always within the root, `..` taken literally as far as it goes."""
    if b".." not in path and b"\0" not in path:
        return tuple([part for part in path.split(b"/") if part and part != b"."])
    parts: list[bytes] = []
    for part in path.split(b"/"):
        if part == b"..":
            del parts[-1:]
        elif part and part != b".":
            if b"\0" in part:
                raise failure(errno.EINVAL)
            parts.append(part)
    return tuple(parts)


def show(path: Path) -> str:
    return "/" + b"/".join(path).decode("utf-8", "backslashreplace")


@dataclass
class Importer:
    """Puts members into `filesystem`. Call `finish` at the end: directories get their times then."""

    filesystem: HumFilesystem
    warn: Callable[[str], None] = lambda line: None
    losses: Losses = field(default_factory=Losses)
    """What could not be put in."""
    is_new: bool = False
    """The filesystem was just made, and counts only once it is complete."""
    members: int = 0
    """How many it was given."""
    _known: dict[Path, int] = field(default_factory=lambda: {(): ROOT})
    _times: dict[int, tuple[int | None, int]] = field(default_factory=dict)
    _copies: dict[int, int] = field(default_factory=dict)
    """For files that can have no more names, by their inode numbers: the file like it that takes the next."""

    def __post_init__(self) -> None:
        self.filesystem.volume.mark()
        self.filesystem.store.journaling = not self.is_new

    # Ways -------------------------------------------------------------------------------------

    def find(self, path: Path) -> Inode | None:
        """The inode at `path`, the last component not followed if it is a symlink."""
        if not path:
            return self.filesystem.node(ROOT)
        try:
            parent = self._parent(path, make=False)
        except OSError:
            return None
        return self.filesystem.child(parent, path[-1])

    def _parent(self, path: Path, make: bool) -> int:
        """The directory that is to have the last component of `path`; with `make`, it is made if missing."""
        directory = path[:-1]
        known = self._known.get(directory)
        if known is None:
            known = self._resolve(directory, make)
            self._known[directory] = known
        return known

    def _resolve(self, path: Path, make: bool) -> int:
        """Walk down to the directory at `path`."""
        fs = self.filesystem
        trail: list[int] = []
        at = ROOT
        pending = list(reversed(path))
        links = 0
        while pending:
            name = pending.pop()
            if name == b"..":
                at = trail.pop() if trail else ROOT
                continue
            inode = fs.child(at, name)
            if inode is None:
                if not make:
                    raise failure(errno.ENOENT)
                inode, _ = fs.make(at, name, stat.S_IFDIR | 0o755, 0, 0, Caller())
            if stat.S_ISLNK(inode.mode):
                links += 1
                if links > SYMLINKS_MAX:
                    raise failure(errno.ELOOP)
                target = os.readlink(inode.name, dir_fd=fs.host.place(inode))
                if target.startswith(b"/"):
                    trail, at = [], ROOT
                pending += [part for part in reversed(target.split(b"/")) if part not in (b"", b".")]
            elif inode.is_directory:
                trail.append(at)
                at = inode.ino
            else:
                raise failure(errno.ENOTDIR)
        return at

    # Making -----------------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    async def add(self, member: Member) -> int:
        """Make it, in place of what is there; returns its inode number. EOFError if the contents are not all there."""
        await self._next()
        try:
            return await self._add(member)
        except EOFError:
            raise EOFError(f"it ends within {show(member.path)}") from None
        except OSError as error:
            raise _explained(error, member.path, self.filesystem) from error

    async def _next(self) -> None:
        """Before each change. An interrupt that came meanwhile is raised here."""
        await trio.lowlevel.checkpoint_if_cancelled()
        self.members += 1

    async def _add(self, member: Member) -> int:
        if not member.path:
            self._dress(self.filesystem.node(ROOT), member)
            return ROOT
        parent = self._parent(member.path, make=True)
        name = member.path[-1]
        if self.is_new and not member.xattrs:
            with contextlib.suppress(FileExistsError):
                return self._make_whole(parent, name, member)
        inode: Inode | None = None
        fd = -1
        try:
            inode, fd = self._new(parent, name, member)
        except FileExistsError:
            inode = self.filesystem.existing(parent, name)
            if not (inode.is_directory and stat.S_ISDIR(member.mode)):
                await self._remove(parent, name, inode)
                inode, fd = self._new(parent, name, member)
        try:
            if member.size and fd >= 0:
                await trio.lowlevel.checkpoint_if_cancelled()  # an interrupt until here: the contents may never come
                self._fill(inode, fd, member)
        finally:
            if fd >= 0:
                os.close(fd)
        self._dress(inode, member)
        return inode.ino

    def _new(self, parent: int, name: bytes, member: Member) -> tuple[Inode, int]:
        caller = Caller(member.uid, member.gid)
        return self.filesystem.make(parent, name, member.mode, member.rdev, 0, caller, member.target)

    def _make_whole(self, parent: int, name: bytes, member: Member) -> int:
        """What is not there yet, in a new filesystem."""
        atime_ns = member.mtime_ns if member.atime_ns is None else member.atime_ns
        making = Making(member.mode, member.uid, member.gid, member.rdev, atime_ns, member.mtime_ns, member.target)
        if member.size and stat.S_ISREG(member.mode):
            self._require_room(member)
            making.fill = partial(_copy_contents, member=member)
        ino = self.filesystem.make_whole(parent, name, making)
        if stat.S_ISDIR(member.mode):
            self._times[ino] = (member.atime_ns, member.mtime_ns)
            self._known[member.path] = ino
        return ino

    def _require_room(self, member: Member) -> None:
        size = member.size if member.ranges is None else sum(length for _, length in member.ranges)
        if self.filesystem.volume.used + size > self.filesystem.volume.superblock.total:
            raise failure(errno.ENOSPC)

    def _fill(self, inode: Inode, fd: int, member: Member) -> None:
        """Copy the contents."""
        fs = self.filesystem
        self._require_room(member)
        try:
            _copy_contents(fd, member)
        finally:
            fs.measure(inode, os.fstat(fd))
        if fs.volume.used > fs.volume.superblock.total:
            raise failure(errno.ENOSPC)

    def _dress(self, inode: Inode, member: Member) -> None:
        """Give it the member's metadata, whatever it inherited."""
        fs = self.filesystem
        inode.mode = stat.S_IFMT(inode.mode) | stat.S_IMODE(member.mode)
        inode.uid, inode.gid = member.uid, member.gid
        if inode.xattrs:
            for name, _ in fs.store.xattrs(inode.ino):
                fs.remove_xattr(inode, name)
        if inode.is_directory:
            self._times[inode.ino] = (member.atime_ns, member.mtime_ns)
        else:
            inode.mtime_ns = member.mtime_ns
            inode.atime_ns = member.mtime_ns if member.atime_ns is None else member.atime_ns
        fs.mark_dirty(inode)
        for name, value in member.xattrs:
            if name in (acl.ACCESS, acl.DEFAULT):
                fs.store.set_meta(posix_acl=1)
            fs.put_xattr(inode, name, value)

    @trio.lowlevel.enable_ki_protection
    async def link(self, path: Path, target: Path) -> None:
        """Make `path` another name of the file at `target`."""
        await self._next()
        try:
            old = self.find(target)
            if old is None:
                what = f"{show(path)}: a hard link to {show(target)}, which there is not"
                raise UmlError(what, "the archive is damaged or not whole, make it again")
            parent = self._parent(path, make=True)
            there = self.filesystem.child(parent, path[-1])
            if there is old:
                return
            if there is not None:
                await self._remove(parent, path[-1], there)
            while old.ino in self._copies:
                old = self.filesystem.node(self._copies[old.ino])
            try:
                entry = await self.filesystem.link(old.ino, parent, path[-1])
                self.filesystem.forget(entry.ino, 1)
            except OSError as error:
                if error.errno != errno.EMLINK:
                    raise
                await self._copy(old, path)
        except OSError as error:
            raise _explained(error, path, self.filesystem) from error

    async def _copy(self, old: Inode, path: Path) -> None:
        """Make a second file like `old`, which takes no more names."""
        self.losses.add("files with more names than the host's filesystem allows are there more than once", show(path))
        fs = self.filesystem
        target = await fs.readlink(old.ino) if stat.S_ISLNK(old.mode) else b""
        attributes = list(fs.store.xattrs(old.ino)) if old.xattrs else []
        member = Member(path, old.mode, old.uid, old.gid, old.rdev, old.atime_ns, old.mtime_ns, target, attributes)
        parent = self._parent(path, make=True)
        inode, fd = self._new(parent, path[-1], member)
        try:
            if fd >= 0:
                source = fs.volume.host.readable(old)
                member.size = os.fstat(source).st_size
                self._require_room(member)
                sparse.copy_data(source, fd, 0, 0, member.size)
                os.ftruncate(fd, member.size)
                fs.measure(inode, os.fstat(fd))
        finally:
            if fd >= 0:
                os.close(fd)
        self._dress(inode, member)
        self._copies[old.ino] = inode.ino

    # Removing ---------------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    async def remove(self, path: Path, keep: set[int]) -> None:
        """Remove what is at `path`, with all that is in it, but the inodes of `keep` and the directories that lead to
        them; nothing there is no error."""
        await self._next()
        inode = self.find(path)
        if inode is None or not path:
            return
        if inode.is_directory and not await self._clear(inode.ino, keep):
            return
        if inode.ino not in keep:
            await self._remove(self._parent(path, make=False), path[-1], inode)

    @trio.lowlevel.enable_ki_protection
    async def clear(self, path: Path, keep: set[int]) -> None:
        """Remove what is in the directory at `path`, all the way down, but the inodes of `keep` and the directories
        that lead to them."""
        await self._next()
        inode = self.find(path)
        if inode is not None and inode.is_directory:
            await self._clear(inode.ino, keep)

    async def _clear(self, ino: int, keep: set[int]) -> bool:
        """True if nothing is left."""
        empty = True
        for name, child in list(self._names(ino)):
            inode = self.filesystem.node(child)
            if inode.is_directory:
                cleared = await self._clear(child, keep)
                if cleared and child not in keep:
                    await self._remove(ino, name, inode)
                else:
                    empty = False
            elif child in keep:
                empty = False
            else:
                await self._remove(ino, name, inode)
        return empty

    async def _remove(self, parent: int, name: bytes, inode: Inode) -> None:
        fs = self.filesystem
        if not inode.is_directory:
            if stat.S_ISLNK(inode.mode):
                self._known = {(): ROOT}  # it may have been on the way to what is known
            await fs.unlink(parent, name)
            return
        for below, child in list(self._names(inode.ino)):
            await self._remove(inode.ino, below, fs.node(child))
        self._times.pop(inode.ino, None)
        self._known = {(): ROOT}
        await fs.rmdir(parent, name)

    def _names(self, ino: int) -> Iterator[tuple[bytes, int]]:
        after = 0
        while rows := self.filesystem.store.entries(ino, after, 1000):
            yield from ((row[1], row[2]) for row in rows)
            after = rows[-1][0]

    # The end ----------------------------------------------------------------------------------

    def finish(self) -> None:
        """Give directories the times that they should have, now that no more names are made in them."""
        for ino, (atime_ns, mtime_ns) in self._times.items():
            inode = self.filesystem.node(ino)
            inode.mtime_ns = mtime_ns
            inode.atime_ns = mtime_ns if atime_ns is None else atime_ns
            self.filesystem.mark_dirty(inode)
        self._times.clear()


@trio.lowlevel.disable_ki_protection
def _copy_contents(fd: int, member: Member) -> None:
    """EOFError if they are not all there."""
    done = 0
    for start, length in ((0, member.size),) if member.ranges is None else member.ranges:
        if start:
            os.lseek(fd, start, os.SEEK_SET)
        if member.source is not None:
            _send(fd, member.source[0], member.source[1] + done, length)
        elif member.contents is not None:
            _pour(fd, member.contents, length)
        done += length
    if member.ranges is not None:
        os.ftruncate(fd, member.size)


def _send(fd: int, source: int, offset: int, size: int) -> None:
    while size:
        count = os.sendfile(fd, source, offset, size)
        if not count:
            raise EOFError
        offset += count
        size -= count


def _pour(fd: int, contents: BinaryIO, size: int) -> None:
    while size:
        data = contents.read(min(size, CHUNK))
        if not data:
            raise EOFError
        size -= len(data)
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]


def _explained(error: OSError, path: Path, filesystem: HumFilesystem) -> UmlError:
    total = filesystem.volume.superblock.total
    if error.errno == errno.ENOSPC and filesystem.volume.used >= total - (64 << 20):
        return UmlError(f"{show(path)}: no room, the filesystem has {total} bytes", "create a larger one with --size")
    return UmlError(f"{show(path)}: {os.strerror(error.errno or errno.EIO)}", None)
