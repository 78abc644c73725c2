"""What a tree consists of: directories, files and links. A plugin derives from these.

A method that is a plain function runs in a thread, and may block; one that is `async def` runs in the event loop, and
must not. One that never waits at all is marked `instant`: it then costs next to nothing. Names are text, bytes that are
no UTF-8 escaped as in `os.fsdecode`. A method raises OSError with the errno that the guest is to see; any other
exception is EIO, with a line in the log.

Whoever asks is hostile: a method gets names and contents as the guest sends them.
"""

from __future__ import annotations

import errno
import stat
from collections.abc import AsyncIterable, Awaitable, Hashable, Iterable
from dataclasses import dataclass
from typing import ClassVar, TypeAlias, TypeVar

from umlfs.externfs.calls import instant
from umlfs.externfs.contents import Contents
from umlfs.filesystem import FOREVER, Caller, SetAttr
from umlfs.host.syscalls import failure

T = TypeVar("T")
Answer: TypeAlias = T | Awaitable[T]
"""What a method gives, by itself or as `async def`."""
Child: TypeAlias = "tuple[str, Node]"
Children: TypeAlias = Iterable[Child] | AsyncIterable[Child]


@dataclass(slots=True)
class Attributes:
    """What stat(2) tells of a node. None is what the tree has: its owner, and when it was opened."""

    mode: int
    """Permission bits."""
    size: int = 0
    mtime_ns: int | None = None
    atime_ns: int | None = None
    """None: as `mtime_ns`; so too `ctime_ns`."""
    ctime_ns: int | None = None
    uid: int | None = None
    gid: int | None = None
    nlink: int = 1
    rdev: int = 0
    blocks: int | None = None
    """Units of 512 bytes; None: as many as `size` takes."""


class Node:
    """Anything that has a name."""

    __slots__ = ()
    kind: ClassVar[int]
    """The file type, as in st_mode."""
    mode: int = 0o444
    """Permission bits, where `attributes` does not say otherwise."""
    valid_ns: int = 0
    """How long a name that led here, and the attributes, may be believed without asking again."""
    listed: bool = True
    """Whether a listing of its directory brings its attributes along. False where they are costly: then they are asked
    for by who wants them."""
    early: int = 0
    """Bits that are left out of its inode number: those who copy a directory take the lowest numbers first."""

    @property
    def key(self) -> Hashable:
        """Equal keys are one inode. A node that is made anew each time it is asked for has a key that stays."""
        return self

    @instant
    async def attributes(self) -> Attributes:
        return Attributes(self.mode)

    def change(self, changes: SetAttr) -> Answer[None]:
        """Set modes, owners and times. The size is the contents' own matter. EPERM if that means nothing here."""
        raise failure(errno.EPERM)

    @property
    def changeable(self) -> bool:
        """Whether `change` is to be asked. Else a change of the times to now does nothing, any other is EPERM."""
        return type(self).change is not Node.change


class Directory(Node):
    """Names of nodes."""

    __slots__ = ()
    kind = stat.S_IFDIR
    mode = 0o555

    def children(self) -> Answer[Children]:
        """All that is in it: a list, or a generator, which is asked for some hundreds at a time. No name twice."""
        return []

    def lookup(self, name: str) -> Answer[Node]:
        """What `name` leads to; ENOENT. Without this method it is searched for in `children`."""
        raise failure(errno.ENOENT)

    def create(self, name: str, mode: int, caller: Caller) -> Answer[Node]:
        """Make an empty file. Nobody else has that name, here and below."""
        raise failure(errno.EPERM)

    def mkdir(self, name: str, mode: int, caller: Caller) -> Answer[Node]:
        raise failure(errno.EPERM)

    def symlink(self, name: str, target: bytes, caller: Caller) -> Answer[Node]:
        raise failure(errno.EPERM)

    def mknod(self, name: str, mode: int, rdev: int, caller: Caller) -> Answer[Node]:
        """Make a fifo, a socket or a device."""
        raise failure(errno.EPERM)

    def link(self, name: str, node: Node) -> Answer[None]:
        """Give `node`, no directory, a second name."""
        raise failure(errno.EPERM)

    def remove(self, name: str, node: Node) -> Answer[None]:
        """Remove `node`; a directory that is not empty is ENOTEMPTY, unless its children vanish with it."""
        raise failure(errno.EPERM)

    def rename(self, name: str, node: Node, to: Directory, new_name: str, replaced: Node | None) -> Answer[None]:
        """Give `node` another name, in the directory `to`. `replaced`, of the same type, is there and goes."""
        raise failure(errno.EXDEV)

    def exchange(self, name: str, node: Node, to: Directory, new_name: str, other: Node) -> Answer[None]:
        """Let two nodes exchange their names."""
        raise failure(errno.EINVAL)


class File(Node):
    """Contents: `read` and `write` deal with the whole, `size` and `read_at` with parts, `open` with everything."""

    __slots__ = ()
    kind = stat.S_IFREG
    size_max: int = 16 << 20
    """How much may be written, in bytes. More is EFBIG."""
    size: int | None = None
    """The size, if it is known without reading. -1: it is known only while the file is open; stat(2) says 0 before."""

    def read(self) -> Answer[bytes | str]:
        """The contents, for one opening of the file. EACCES: it can only be written."""
        raise failure(errno.EACCES)

    def write(self, data: bytes) -> Answer[None]:
        """Replace the contents. Called when the writer closes or syncs the file, who gets what is raised. EACCES."""
        raise failure(errno.EACCES)

    def read_at(self, offset: int, length: int) -> Answer[bytes | memoryview]:
        """`length` bytes from `offset`, fewer only at the end."""
        raise failure(errno.EACCES)

    def open(self, flags: int) -> Answer[Contents]:
        """What is read and written until it is closed."""
        raise failure(errno.EACCES)


class Action(File):
    """A file each write to which does something. An error is the writer's."""

    __slots__ = ()
    mode = 0o200
    size = 0

    def act(self, data: bytes) -> Answer[None]:
        """Do what `data`, one write, says."""
        raise failure(errno.EINVAL)


class Link(Node):
    """A symbolic link."""

    __slots__ = ("target",)
    kind = stat.S_IFLNK
    mode = 0o777

    def __init__(self, target: bytes) -> None:
        self.target = target

    @instant
    async def attributes(self) -> Attributes:
        return Attributes(self.mode, len(self.target))


class Text(File):
    """A file whose contents are known."""

    __slots__ = ("_key", "data")

    def __init__(self, data: bytes | str, key: Hashable = None) -> None:
        self.data = data.encode(errors="surrogateescape") if isinstance(data, str) else data
        self._key = key

    @property
    def key(self) -> Hashable:
        return self if self._key is None else self._key

    @instant
    async def attributes(self) -> Attributes:
        return Attributes(self.mode, len(self.data))

    @instant
    async def read(self) -> bytes:
        return self.data


class Fixed(Directory):
    """A directory whose names are known and stay."""

    __slots__ = ("names",)
    valid_ns = FOREVER

    def __init__(self, names: dict[str, Node]) -> None:
        self.names = names

    @instant
    async def children(self) -> Iterable[Child]:
        return list(self.names.items())

    @instant
    async def lookup(self, name: str) -> Node:
        node = self.names.get(name)
        if node is None:
            raise failure(errno.ENOENT)
        return node
