"""An ext4 image out of a tree's members: true owners, devices and attributes, written by an ordinary user.

What is written depends on the members alone, their order included, and on the settings: no clock, no random number.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import struct
import subprocess
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from humfs.importer import Member, Path, show
from humfs.losses import Losses
from runtime.archives.tree import ArchiveNode, ArchiveTree
from runtime.host.needs import find_program
from runtime.images import ext2fs
from runtime.images.ext4_blocks import BLOCK, directory_blocks, encode_time, stretches
from runtime.images.streams import failed, require_room
from umlfs.blocks import sparse
from umlfs.errors import UmlError
from umlfs.host.programs import run_program
from umlfs.host.syscalls import failure

_INODE_RATIO: Final = 16384
_FEATURES: Final = (
    "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,huge_file,"
    "dir_nlink,extra_isize,metadata_csum"
)
"""Debian 12's, whatever the host's mke2fs.conf says."""
_CHUNK: Final = 1 << 20
_FAST_LINK: Final = 60
"""A shorter target lies in the inode."""
_LINKS_MAX: Final = 65000
"""Names of a file; a directory with more subdirectories counts as one with 1 (dir_nlink)."""
_TARGET_MAX: Final = 4095
_NAME_MAX: Final = 255
_EMPTY_EXTENTS: Final = struct.pack("<HHHHI48x", 0xF30A, 0, 4, 0, 0)
_LOST: Final = b"lost+found"
_SPACE: Final = uuid.UUID("5a3d7a2e-2f0c-4c55-9e0b-6b7c9df0c9f1")
"""What the identifiers of reproducible filesystems are derived in."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a filesystem is made with."""

    size: int
    """In bytes."""
    inodes: int | None = None
    """At least so many; by default one for each 16 KiB."""
    label: str = ""
    epoch: int | None = None
    """The time (in seconds) of all that has no time of its own. With it, the filesystem's identifier is derived from
    what is given here; without, it is random."""

    @property
    def identifier(self) -> uuid.UUID:
        """The filesystem's UUID."""
        return uuid.uuid4() if self.epoch is None else uuid.uuid5(_SPACE, f"{self.size} {self.label} {self.epoch}")


def make_filesystem(fd: int, settings: Settings) -> None:
    """Make the file behind `fd` an image with an empty ext4. UmlError if mkfs fails."""
    os.ftruncate(fd, settings.size)
    identifier = str(settings.identifier)
    extended = f"hash_seed={identifier},root_owner=0:0,lazy_itable_init=0,assume_storage_prezeroed=1"
    words = ["-q", "-F", "-b", str(BLOCK), "-I", str(ext2fs.INODE_SIZE), "-i", str(_INODE_RATIO), "-O", _FEATURES]
    words += ["-U", identifier, "-E", extended]
    if settings.label:
        words += ["-L", settings.label]
    if settings.inodes is not None and settings.inodes > settings.size // _INODE_RATIO:
        words += ["-N", str(settings.inodes)]
    environment = {"PATH": os.defpath, "LC_ALL": "C"}
    if settings.epoch is not None:
        environment |= dict.fromkeys(("SOURCE_DATE_EPOCH", "E2FSPROGS_FAKE_TIME"), str(settings.epoch))
    done = run_program(
        [find_program("mkfs.ext4"), *words, f"/proc/self/fd/{fd}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=[fd],
        env=environment,
    )
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        require_room(lines)
        raise failed(f"mkfs cannot make an ext4 of {settings.size} bytes", lines, "name another --size")


@dataclass
class Ext4Writer:
    """Puts members into the empty filesystem in `path`, an image that `make_filesystem` made. Use it in a `with`: it
    is closed at the end, or abandoned on an error. Everything waits for the disk.

    UmlError naming the member for what cannot be put in; no room is one.
    """

    path: str
    settings: Settings
    losses: Losses = field(default_factory=Losses)
    _copies: dict[int, ArchiveNode] = field(default_factory=dict)
    """Of a file that has as many names as can be: the copy that has the next ones, by inode number."""
    _next: int = ext2fs.FIRST
    _directories: dict[int, ArchiveNode] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        try:
            self._open()
        except BaseException:
            os.close(self._fd)
            raise

    def _open(self) -> None:
        self._fs = ext2fs.Ext2Filesystem(self.path, self.settings.epoch or 0)
        lost = ArchiveNode(ext2fs.LOST_AND_FOUND, stat.S_IFDIR, {})
        self._tree = ArchiveTree(ArchiveNode(ext2fs.ROOT, stat.S_IFDIR, {_LOST: lost}), self._make_parent)
        self._directories = {node.ino: node for node in (lost, self._tree.root)}
        self._dress(ext2fs.ROOT, self._implied(), self._fs.read(ext2fs.ROOT))
        self._dress(ext2fs.LOST_AND_FOUND, self._implied(0o700), self._fs.read(ext2fs.LOST_AND_FOUND))

    def __enter__(self) -> Ext4Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._finish()
                self._fs.close()
        finally:
            self._fs.abandon()
            os.close(self._fd)

    # Members ----------------------------------------------------------------------------------

    def add(self, member: Member) -> None:
        """Put one file in, in the place of what is there; a directory adds to the one that is there."""
        try:
            self._add(member, stat.S_IFMT(member.mode))
        except OSError as error:
            raise self._explained(error, member.path) from error

    def _add(self, member: Member, kind: int) -> None:
        _require_name(member.path, is_directory=kind == stat.S_IFDIR)
        names = self._tree.parent(member.path) if member.path else {}
        there = names.get(member.path[-1]) if member.path else self._tree.root
        if there is None:
            names[member.path[-1]] = self._make(member, kind)
        elif kind == stat.S_IFDIR == there.kind:
            self._dress(there.ino, member, self._fs.read(there.ino))
            self._attributes(there.ino, member)
        else:
            self._remove(names, member.path[-1])
            names[member.path[-1]] = self._make(member, kind)

    def link(self, path: Path, target: Path) -> None:
        """Make `path` another name of the file at `target`."""
        try:
            self._link(path, target)
        except OSError as error:
            raise self._explained(error, path) from error

    def _link(self, path: Path, target: Path) -> None:
        _require_name(path, is_directory=False)
        node = self._tree.find(target)
        if node is None or node.children is not None:
            raise failure(errno.ENOENT if node is None else errno.EPERM)
        names = self._tree.parent(path)
        there = names.get(path[-1])
        if there is node:
            return
        while node.names >= _LINKS_MAX:
            node = self._copies[node.ino] if node.ino in self._copies else self._copy(node, path)
        if there is not None:
            self._remove(names, path[-1])
        names[path[-1]] = node
        node.names += 1
        self._set_links(node.ino, node.names)

    def _copy(self, node: ArchiveNode, path: Path) -> ArchiveNode:
        """A file with the same contents, which has no name yet."""
        self.losses.add("files with more names than ext4 allows are there more than once", show(path))
        ino = self._next
        self._fs.claim(ino, False)
        self._next += 1
        inode = self._fs.read(node.ino)
        size = inode.size | inode.size_high << 32
        is_stored = node.kind == stat.S_IFREG or (node.kind == stat.S_IFLNK and size >= _FAST_LINK)
        if is_stored:
            inode.blocks, inode.size, inode.size_high, inode.flags = 0, 0, 0, ext2fs.EXTENTS
            inode.block[:] = struct.unpack("<15I", _EMPTY_EXTENTS)
        inode.file_acl = 0
        self._fs.write(ino, inode)
        if is_stored:
            self._copy_contents(node.ino, ino, size)
        attributes = self._fs.attributes(node.ino)
        if attributes:
            self._fs.set_attributes(ino, attributes)
        made = self._copies[node.ino] = ArchiveNode(ino, node.kind, None, node.target, names=0)
        return made

    def _copy_contents(self, source: int, target: int, size: int) -> None:
        with contextlib.closing(self._fs.open(source)) as old, contextlib.closing(self._fs.open(target)) as new:
            position = 0
            while position < size:
                data = old.read(min(_CHUNK, size - position))
                if not data:
                    raise failure(errno.EIO)
                for first, last in stretches(data, position):
                    new.seek(first)
                    new.write(data[first - position : last - position])
                position += len(data)
            new.set_size(size)

    def _explained(self, error: OSError, path: Path) -> UmlError:
        if isinstance(error, ext2fs.NoRoom):
            return UmlError(f"{show(path)}: no room in {self.settings.size} bytes", "name a larger --size")
        way_out = "make room where the image is made" if error.errno == errno.ENOSPC else None
        return UmlError(f"{show(path)}: {error.strerror}", way_out)

    # Making -----------------------------------------------------------------------------------

    def _implied(self, mode: int = 0o755) -> Member:
        """A directory that nobody described."""
        return Member((), stat.S_IFDIR | mode, mtime_ns=(self.settings.epoch or 0) * 10**9)

    def _make_parent(self) -> ArchiveNode:
        return self._make(self._implied(), stat.S_IFDIR)

    def _make(self, member: Member, kind: int) -> ArchiveNode:
        ino = self._next
        is_directory = kind == stat.S_IFDIR
        self._fs.claim(ino, is_directory)
        self._next += 1
        node = ArchiveNode(ino, kind, {} if is_directory else None, member.target)
        if is_directory:
            self._directories[ino] = node
        inode = ext2fs.Inode(links=1, extra_size=32)
        self._place(inode, member, kind)
        self._dress(ino, member, inode)
        if kind == stat.S_IFREG and member.size:
            self._write_file(ino, member)
        elif kind == stat.S_IFLNK and len(member.target) >= _FAST_LINK:
            self._write_contents(ino, member.target)
        self._attributes(ino, member)
        return node

    @staticmethod
    def _place(inode: ext2fs.Inode, member: Member, kind: int) -> None:
        """Fill in what an inode has instead of blocks, or an empty list of them."""
        if kind in (stat.S_IFCHR, stat.S_IFBLK):
            major, minor = os.major(member.rdev), os.minor(member.rdev)
            if major < 256 and minor < 256:
                inode.block[0] = major << 8 | minor
            else:
                inode.block[1] = minor & 0xFF | major << 8 | (minor & ~0xFF) << 12
        elif kind == stat.S_IFREG and member.ranges is None:
            inode.size, inode.size_high = member.size & 0xFFFFFFFF, member.size >> 32
        elif kind == stat.S_IFLNK:
            if not 0 < len(member.target) <= _TARGET_MAX:
                raise failure(errno.ENAMETOOLONG if member.target else errno.ENOENT)
            inode.size = len(member.target)
            if len(member.target) < _FAST_LINK:
                inode.block[:] = struct.unpack("<15I", member.target.ljust(_FAST_LINK, b"\0"))
                return
        if kind in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
            inode.flags = ext2fs.EXTENTS
            inode.block[:] = struct.unpack("<15I", _EMPTY_EXTENTS)

    def _dress(self, ino: int, member: Member, inode: ext2fs.Inode) -> None:
        """Give an inode the member's metadata."""
        inode.mode = member.mode & 0xFFFF
        inode.uid, inode.uid_high = member.uid & 0xFFFF, member.uid >> 16 & 0xFFFF
        inode.gid, inode.gid_high = member.gid & 0xFFFF, member.gid >> 16 & 0xFFFF
        inode.mtime, inode.mtime_extra = inode.ctime, inode.ctime_extra = encode_time(member.mtime_ns)
        inode.crtime, inode.crtime_extra = inode.mtime, inode.mtime_extra
        at = member.mtime_ns if member.atime_ns is None else member.atime_ns
        inode.atime, inode.atime_extra = encode_time(at)
        self._fs.write(ino, inode)

    def _attributes(self, ino: int, member: Member) -> None:
        if member.xattrs:
            for name in self._fs.set_attributes(ino, list(member.xattrs)):
                text = name.decode("utf-8", "replace")
                self.losses.add(f"attributes {text} that ext4 has no room for are left out", show(member.path))

    # Contents ---------------------------------------------------------------------------------

    def _write_contents(self, ino: int, data: bytes) -> None:
        with contextlib.closing(self._fs.open(ino)) as contents:
            contents.write(data)

    def _write_file(self, ino: int, member: Member) -> None:
        if member.ranges is not None:
            self._write_sparsely(ino, member, member.ranges)
            return
        places = self._fs.allocate(ino, -(-member.size // BLOCK))
        if places is None:
            self._write_through_library(ino, member)
            return
        position = 0
        for offset, room in places:
            end = min(member.size, position + room)
            while position < end:
                data = _read(member, position, end)
                sparse.write_all(self._fd, data, offset)
                position += len(data)
                offset += len(data)

    def _write_through_library(self, ino: int, member: Member) -> None:
        with contextlib.closing(self._fs.open(ino)) as contents:
            position = 0
            while position < member.size:
                data = _read(member, position, member.size)
                contents.write(data)
                position += len(data)

    def _write_sparsely(self, ino: int, member: Member, ranges: Sequence[tuple[int, int]]) -> None:
        with contextlib.closing(self._fs.open(ino)) as contents:
            done = 0
            for start, length in ranges:
                position, end = start, start + length
                while position < end:
                    data = _read(member, done, done + end - position)
                    for first, last in stretches(data, position):
                        contents.seek(first)
                        contents.write(data[first - position : last - position])
                    position += len(data)
                    done += len(data)
            contents.set_size(member.size)

    # Removing ---------------------------------------------------------------------------------

    def _remove(self, names: dict[bytes, ArchiveNode], name: bytes) -> None:
        node = names.pop(name)
        self._tree.forget()
        if node.children is not None:
            for below in list(node.children):
                self._remove(node.children, below)
            del self._directories[node.ino]
        node.names -= 1
        if node.names:
            self._set_links(node.ino, node.names)
        else:
            self._fs.release(node.ino, node.children is not None)

    def _set_links(self, ino: int, count: int) -> None:
        inode = self._fs.read(ino)
        inode.links = count
        self._fs.write(ino, inode)

    # The end ----------------------------------------------------------------------------------

    def _finish(self) -> None:
        """Write all directories."""
        parents = {self._tree.root.ino: self._tree.root.ino}
        for node in self._directories.values():
            parents |= {child.ino: node.ino for child in (node.children or {}).values() if child.children is not None}
        try:
            for ino, node in self._directories.items():
                self._write_directory(node, parents[ino])
        except OSError as error:
            raise self._explained(error, ()) from error

    def _write_directory(self, node: ArchiveNode, parent: int) -> None:
        children = node.children or {}
        blocks = directory_blocks(node.ino, parent, children)
        if node.ino != ext2fs.LOST_AND_FOUND or children:
            for number, block in enumerate(blocks):
                self._fs.write_directory_block(node.ino, number, block)
        inode = self._fs.read(node.ino)
        inode.size = max(len(blocks) * BLOCK, inode.size)
        links = 2 + sum(child.children is not None for child in children.values())
        inode.links = links if links < _LINKS_MAX else 1
        self._fs.write(node.ino, inode)


def _require_name(path: Path, is_directory: bool) -> None:
    """Refuse what ext4 has no name for: only a directory can be the root."""
    if not path and not is_directory:
        raise failure(errno.EISDIR)
    if any(len(part) > _NAME_MAX for part in path):
        raise failure(errno.ENAMETOOLONG)


def _read(member: Member, position: int, end: int) -> bytes:
    """The next bytes of a member's contents, not beyond `end`. EIO if there are none."""
    size = min(_CHUNK, end - position)
    if member.source is not None:
        data = os.pread(member.source[0], size, member.source[1] + position)
    else:
        data = member.contents.read(size) if member.contents is not None else b""
    if not data:
        raise failure(errno.EIO)
    return data
