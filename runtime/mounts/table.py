"""The mounts that are there: the host's kernel keeps the table, and each of ours tells of itself."""

from __future__ import annotations

import errno
import json
import os
import re
import select
import threading
from dataclasses import dataclass, field
from typing import Any, Final

from umlfs.errors import UmlError
from umlfs.host.holder import described, keepers

TYPE: Final = "fuse.umlfs"
STATUS: Final = "user.umlfs.status"
"""The extended attribute of a mount's root that holds what `Status` tells."""

DEAD: Final = frozenset({errno.ENOTCONN, errno.ECONNREFUSED, errno.ECONNABORTED})
"""What the kernel says of a mount whose server has gone, or could not agree with it."""

ANSWER_SECONDS: Final = 5.0
END_SECONDS: Final = 15.0
_STATUS_MAX: Final = 65536


@dataclass(frozen=True, slots=True)
class Status:
    """What a mount tells of itself."""

    source: str
    pid: int
    since: float
    """When it was mounted, in seconds since the epoch."""
    requests: int
    """How many requests it has answered."""
    remarks: list[str] = field(default_factory=list)
    """What a person should know of its state."""
    read_only: bool = False
    """The source was opened for reading only."""

    def encoded(self) -> bytes:
        """As the extended attribute holds it."""
        fields = {"source": self.source, "pid": self.pid, "since": self.since, "requests": self.requests}
        more = {"read_only": self.read_only, "remarks": self.remarks}
        return json.dumps({**fields, **more}).encode()[:_STATUS_MAX]


@dataclass(frozen=True, slots=True)
class MountEntry:
    """A line of the mount table that is of our type."""

    path: str
    source: str
    device: int
    user: int
    """Who mounted it."""

    @property
    def ours(self) -> bool:
        """Whether it was this user who mounted it."""
        return self.user == os.geteuid()

    def status(self) -> Status:
        """Ask the mount. OSError: one of `DEAD` if it is, ETIMEDOUT if it does not answer, EACCES if another's."""
        return _decoded(_within(ANSWER_SECONDS, self.path))

    def is_dead(self) -> bool:
        """Whether its server has gone without unmounting."""
        try:
            self.status()
        except OSError as error:
            return error.errno in DEAD
        return False


def _decoded(content: bytes) -> Status:
    try:
        record: dict[str, Any] = json.loads(content)
        return Status(
            str(record["source"]),
            int(record["pid"]),
            float(record["since"]),
            int(record["requests"]),
            list(map(str, record["remarks"])),
            bool(record.get("read_only")),
        )
    except (ValueError, KeyError, TypeError):
        raise OSError(errno.EPROTO, "the mount does not tell of itself") from None


def _within(seconds: float, path: str) -> bytes:
    """The status of the mount at `path`, read by a thread that is left behind if it takes longer."""
    result: list[bytes | OSError] = []

    def ask() -> None:
        try:
            result.append(os.getxattr(path, STATUS))
        except OSError as error:
            result.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    if not result:
        raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT), path)
    if isinstance(result[0], OSError):
        raise result[0]
    return result[0]


_ESCAPE: Final = re.compile(rb"\\([0-7]{3})")


def _unescaped(word: bytes) -> str:
    return os.fsdecode(_ESCAPE.sub(lambda match: bytes([int(match[1], 8)]), word))


def table() -> list[MountEntry]:
    """All mounts of our type, whoever mounted them, in the order of mounting. Does not touch any of them."""
    with open("/proc/self/mountinfo", "rb") as lines:
        return [mount for line in lines if (mount := _parsed(line)) is not None]


def _parsed(line: bytes) -> MountEntry | None:
    """A line of proc_pid_mountinfo(5), if it is one of ours."""
    place, _, rest = line.partition(b" - ")
    kind, source, options = rest.split()[:3]
    if kind != TYPE.encode():
        return None
    fields = place.split()
    major, _, minor = fields[2].partition(b":")
    user = re.search(rb"\buser_id=(\d+)", options)
    device = os.makedev(int(major), int(minor))
    return MountEntry(_unescaped(fields[4]), _unescaped(source), device, int(user[1]) if user else 0)


def find(mountpoint: str | os.PathLike[str]) -> MountEntry | None:
    """The mount of our type that is on top at `mountpoint`, if any. Does not touch it: it may be dead, or hang."""
    place = os.path.abspath(mountpoint)
    parent, name = os.path.split(place)
    # Only what is no mount point itself may be a symlink to one.
    return _at(os.path.join(os.path.realpath(parent), name)) or _at(os.path.realpath(place))


def _at(path: str) -> MountEntry | None:
    found = [mount for mount in table() if mount.path == path]
    return found[-1] if found else None


def clear_dead(mountpoint: str | os.PathLike[str]) -> bool:
    """Take away a dead mount of ours at `mountpoint`; whether there was one. Blocks. UmlError if it stays."""
    from umlfs.mount.unmount import unmount

    cleared = False
    while (mount := find(mountpoint)) is not None and mount.is_dead():
        try:
            unmount(mount.path, lazy=True)
        except OSError as error:
            raise UmlError(f"{mount.path}: a dead mount is there: {error.strerror}", "unmount it as root") from None
        cleared = True
    return cleared


def umount(mountpoint: str, *, lazy: bool = False) -> None:
    """Unmount, and wait until its server has ended: all that was written has arrived then. Blocks.

    With `lazy` the mount goes away at once, and its server when nobody uses it any more. UmlError if nothing of
    ours is there, or it is in use.
    """
    from umlfs.mount.unmount import unmount

    mount = find(mountpoint)
    if mount is None:
        raise UmlError(f"{mountpoint}: nothing of ours is mounted there", "'uml mount' lists what is")
    server = None
    try:
        server = os.pidfd_open(mount.status().pid)
    except OSError as error:
        if error.errno in DEAD:
            clear_dead(mountpoint)
            return
    try:
        unmount(mount.path, lazy=lazy)
        if server is not None and not lazy:
            _wait(mount, server)
    except OSError as error:
        if error.errno == errno.EBUSY:
            way_out = f"'fuser -vm {mount.path}' tells who uses it; 'uml umount --lazy' takes it away nevertheless"
            raise UmlError(f"{mount.path}: in use", way_out) from None
        wanting = "/etc/mtab" in str(error.strerror)
        way_out = "'uml doctor' says what mends that" if wanting else "whoever mounted it can unmount it"
        raise UmlError(f"{mount.path}: {error.strerror}", way_out) from None
    finally:
        if server is not None:
            os.close(server)


def _wait(mount: MountEntry, server: int) -> None:
    poll = select.poll()
    poll.register(server, select.POLLIN)
    if not poll.poll(END_SECONDS * 1000):
        raise UmlError(f"{mount.path}: unmounted here, but {_why_it_serves(mount)}", "end that, or leave it be")


def _why_it_serves(mount: MountEntry) -> str:
    """Why the server of a mount that is gone goes on."""
    keeper = next(keepers(mount.device), None)
    if keeper is None:
        return "its server has not ended yet"
    return f"the mount namespace of {described(keeper) or f'process {keeper}'} has it still"
