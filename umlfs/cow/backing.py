"""The backing file that a COW file names: where it is, and whether it still is what it was.

The rules are the kernel's: size in bytes and mtime in whole seconds must be those in the header.
"""

from __future__ import annotations

import errno
import logging
import os
import shlex
import stat
from dataclasses import dataclass

from umlfs.cow.header import MTIME_MAX, PATH_MAX, Header
from umlfs.errors import UmlError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Backing:
    """A backing file as it is now."""

    path: str
    size: int
    mtime: int
    """In seconds."""
    identity: tuple[int, int]
    """Device and inode number."""


def is_remote(path: str) -> bool:
    """Whether a backing path is not a file's but names another source, such as `nbd://host/name`.

    The kernel cannot open such a COW file; it has no mtime, and is trusted to stay as it is.
    """
    scheme, found, _ = path.partition("://")
    return bool(found) and scheme.replace("+", "").isalnum()


def look_at(path: str) -> Backing:
    """What a backing file is now. OSError; UmlError if it is not a file or block device."""
    found = os.stat(path)
    if stat.S_ISBLK(found.st_mode):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            size = os.lseek(fd, 0, os.SEEK_END)
        finally:
            os.close(fd)
    elif stat.S_ISREG(found.st_mode):
        size = found.st_size
    else:
        raise UmlError(f"{path}: neither a file nor a block device", "name an image as the backing file")
    return Backing(path, size, int(found.st_mtime_ns // 10**9), (found.st_dev, found.st_ino))


def mismatch(header: Header, backing: Backing) -> str | None:
    """Why `backing` is not what the COW file was made over; None if it is."""
    if backing.size != header.size:
        return f"its size is {backing.size}, it was {header.size}"
    if backing.mtime != header.mtime:
        return f"its mtime is {backing.mtime}, it was {header.mtime}"
    return None


def restore_command(header: Header, path: str) -> str:
    """The command that gives an unchanged backing file its timestamp again."""
    return f"touch -d @{header.mtime} {shlex.quote(path)}"


def require_match(cow: str, header: Header, backing: Backing) -> None:
    """UmlError with both ways out if `backing` is not what the COW file was made over."""
    reason = mismatch(header, backing)
    if reason is None:
        return
    restore = f"restore it, with its timestamp ({restore_command(header, backing.path)})"
    raise UmlError(
        f"{cow}: its backing file {backing.path} has changed: {reason}",
        f"{restore}, or discard the COW file and all changes in it (rm {shlex.quote(cow)})",
    )


def find(cow: str, header: Header, identity: tuple[int, int]) -> Backing:
    """The backing file that the header names. UmlError if there is none, or it cannot be one.

    `identity` is the COW file's own.
    """
    path = os.fsdecode(header.backing)
    way_out = f"say where it is: 'uml cow rebase {shlex.quote(cow)} PATH'"
    if not os.path.isabs(path):
        raise UmlError(f"{cow}: the path of its backing file, {path!r}, is relative", way_out)
    try:
        backing = look_at(path)
    except OSError as error:
        raise UmlError(f"{cow}: its backing file {path}: {_why(error)}", way_out) from error
    require_other(cow, backing, identity)
    return backing


def _why(error: OSError) -> str:
    if error.errno == errno.ELOOP:
        return "its symbolic links lead in a circle"
    return (error.strerror or str(error)).lower()


def require_other(cow: str, backing: Backing, identity: tuple[int, int]) -> None:
    """UmlError if the backing file is the COW file itself."""
    if backing.identity == identity:
        raise UmlError(f"{cow}: it names itself as its backing file", "name the file it was made over")


def choose(cow: str, header: Header, identity: tuple[int, int], given: str | None) -> tuple[Backing, bool]:
    """The backing file to use, valid, and whether the header is to name it from now on.

    As the kernel does it: `given` is taken if it is another file of the very size and mtime that the header
    has. Otherwise that is logged, and the header's file is used, if that is valid.
    """
    if given is not None and (moved := _moved(cow, header, given)):
        require_other(cow, moved, identity)
        return moved, True
    backing = find(cow, header, identity)
    require_match(cow, header, backing)
    return backing, False


def _moved(cow: str, header: Header, given: str) -> Backing | None:
    """The file `given`, if it is to take the place of the header's."""
    named = os.fsdecode(header.backing)
    if given == named:
        return None
    try:
        found = look_at(given)
    except OSError as error:
        log.warning("%s: %s; using %s, which the COW file names", given, _why(error), named)
        return None
    try:
        if look_at(named).identity == found.identity:
            return None
    except (OSError, UmlError):
        pass  # gone: all the more reason for another
    if reason := mismatch(header, found):
        log.warning("%s is not what %s was made over: %s; using %s, which it names", given, cow, reason, named)
        return None
    return found


def absolute(path: str) -> bytes:
    """The path of a backing file as it goes into a header: the directory resolved, a link at its end kept.

    UmlError if it is too long.
    """
    directory, name = os.path.split(path)
    full = os.fsencode(os.path.join(os.path.realpath(directory or "."), name))
    if len(full) >= PATH_MAX:
        raise UmlError(f"{path}: its full path has {len(full)} bytes, a COW file has room for {PATH_MAX - 1}")
    return full


def require_usable(backing: Backing) -> None:
    """UmlError if no header can describe the file."""
    if not 0 <= backing.mtime <= MTIME_MAX:
        raise UmlError(
            f"{backing.path}: its mtime {backing.mtime} does not fit into a COW file (1970 to 2106)",
            f"give it another: touch {shlex.quote(backing.path)}",
        )
