"""The steps of `launcher.c` for one machine: layer by layer, each with what it is for."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from runtime.jail import landlock, limits, users
from runtime.jail.grants import OWN, Grants
from runtime.jail.landlock import OF_FILES, Access
from runtime.jail.layers import Layer
from runtime.jail.users import User

CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWNET: Final = 0x40000000
NAMESPACES: Final = 0x7E020000 & ~CLONE_NEWUSER
"""Mounts, cgroups, UTS, IPC, processes, network."""

EMPTY: Final = "empty"
"""Of the machine's directory: where the new root is put together."""
OWN_ROOM: Final = "size=256k,nr_inodes=64"

DEVICES_READ: Final = (Path("/dev/random"), Path("/dev/urandom"))
DEVICES_WRITE: Final = (Path("/dev/null"),)
FACTS: Final = (Path("/proc/cpuinfo"),)
"""What the kernel wants to know of the processor."""

_RUN: Final = Access.EXECUTE | Access.READ_FILE
_READ: Final = Access.READ_FILE | Access.READ_DIR
_CHANGE: Final = _READ | Access.WRITE_FILE | Access.TRUNCATE
_MANAGE: Final = _CHANGE | Access.MAKE_REG | Access.MAKE_DIR | Access.MAKE_SOCK | Access.REMOVE_DIR | Access.REMOVE_FILE
_ALL: Final = _MANAGE | Access.MAKE_SYM | Access.MAKE_FIFO | Access.REFER


class Plan(NamedTuple):
    """What a machine's jail is made of."""

    directory: Path
    """The machine's own, on the host: sockets, the initramfs, and the subdirectories `OWN` and `EMPTY`."""
    memory: int
    """Bytes of the guest's memory."""
    memory_directory: Path
    """For the file of the guest's memory; of this machine alone."""
    memory_on_disk: bool
    """It is on a disk, where the caller wants it."""
    programs: Sequence[Path]
    """The kernel and its libraries, and whatever else it may execute."""
    grants: Grants
    user: User
    """Who the kernel is to be."""
    files: int
    """How many files it may have open."""
    seccomp: int
    """The descriptor that holds the filter; -1 where there is none for this machine."""
    tells: bool
    """Somebody hears of the system calls that the filter refuses."""
    entrance: int = -1
    """The descriptor by which a process joins the machine's control group; -1 where there is none."""

    def steps(self) -> list[str]:
        """The words for the launcher."""
        return [str(word) for word in self._words()]

    def _words(self) -> Iterator[object]:
        yield from self._limits()
        if self.entrance >= 0:  # before namespaces: the group is the root of its own
            yield from ("layer", Layer.CGROUP, "", "join", self.entrance)
            yield from ("layer", "", "", "close", self.entrance)
        yield from self._join_network()
        yield from self._namespaces()
        yield from self._root()
        yield from ("layer", Layer.PRIVILEGES, "", "nonewprivs")
        yield from self._user()
        yield from ("layer", "", "", "hand", self.directory / OWN)
        yield from self._landlock()
        if self.seccomp >= 0:
            yield from ("layer", Layer.SECCOMP, "", "seccomp", self.seccomp, int(self.tells), "close", self.seccomp)

    @property
    def _by_root(self) -> bool:
        """The caller makes namespaces, and becomes another user, without a user namespace."""
        return os.geteuid() == 0 and (users.shows_files() or users.may_become_another())

    def _limits(self) -> Iterator[object]:
        yield from ("layer", Layer.LIMITS, "")
        for which, value in limits.limits(self.memory, self.grants.file_size, self.files):
            yield from ("rlimit", which, value)

    def _processes(self) -> Iterator[object]:
        """Counted for each user in each user namespace: so only after that is the machine's own."""
        yield from ("rlimit", resource.RLIMIT_NPROC, limits.processes(self.memory))

    def _join_network(self) -> Iterator[object]:
        """Without it nothing is started: the kernel would have no network, or that of the host."""
        for number in self.grants.network:
            yield from ("layer", "", "", "setns", number, "close", number)

    def _namespaces(self) -> Iterator[object]:
        yield from ("layer", Layer.NAMESPACES, "")
        made = NAMESPACES & ~CLONE_NEWNET if self.grants.network else NAMESPACES
        if self._by_root:
            yield from ("unshare", made)
        else:
            yield from ("unshare", made | CLONE_NEWUSER, "map", self.user.uid, self.user.gid)
            yield from self._processes()

    def _root(self) -> Iterator[object]:
        owner = f"mode=0700,uid={self.user.uid},gid={self.user.gid}"
        yield from ("layer", Layer.ROOT, Layer.NAMESPACES, "root", self.directory / EMPTY)
        yield from ("bind", self.directory, "ro", "tmpfs", self.directory / OWN, f"{OWN_ROOM},{owner}")
        if self.memory_on_disk:
            yield from ("bind", self.memory_directory, "rw")
        else:
            yield from ("tmpfs", self.memory_directory, f"size={limits.room(self.memory)},nr_inodes=64,{owner}")
        yield "devpts"
        for path in (*self.programs, *self.grants.read, *self.grants.sockets, *DEVICES_READ, *FACTS):
            yield from ("bind", path, "ro")
        for path in (*self.grants.write, *self.grants.devices, *DEVICES_WRITE):
            yield from ("bind", path, "rw")
        yield "pivot"

    def _user(self) -> Iterator[object]:
        yield from ("layer", Layer.USER, "")
        if self._by_root and self.user.uid:
            yield from self._processes()
            yield from ("user", self.user.uid, self.user.gid)
        yield "nocaps"

    def _landlock(self) -> Iterator[object]:
        found = landlock.features()
        if not found.abi:
            return
        yield from ("layer", Layer.LANDLOCK, "", "landlock", int(found.files))
        yield from (0 if self.grants.speaks else found.network, found.scopes, found.size)
        for path, access in self._rules():
            allowed = access & found.files & (~Access(0) if path.is_dir() else OF_FILES)
            yield from ("allow", path, int(allowed))
        yield "enforce"

    def _rules(self) -> Iterator[tuple[Path, Access]]:
        yield from ((path, _RUN) for path in self.programs)
        yield self.directory, _READ
        yield self.directory / OWN, _MANAGE
        yield self.memory_directory, _MANAGE | Access.EXECUTE
        yield from ((path, _READ) for path in (*DEVICES_READ, *FACTS, *self.grants.read))
        yield from ((path, _CHANGE) for path in DEVICES_WRITE)
        devices = (Path("/dev/ptmx"), Path("/dev/pts"), *self.grants.devices)
        yield from ((path, _CHANGE | Access.IOCTL_DEV) for path in devices)
        yield from ((path, _ALL if path.is_dir() else _CHANGE) for path in self.grants.write)
