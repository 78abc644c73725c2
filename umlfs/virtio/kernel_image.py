"""What a UML kernel does not share: its own image, at the beginning of the guest's memory.

Its page of zeroes is there, which it has disks read where they have no request of their own for zeroes (below MD, for
one). A copy is read from the kernel's process.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
from collections.abc import Callable
from typing import Final, Self

from umlfs.host.syscalls import failure

_CREDENTIALS: Final = struct.Struct("3i")
"""struct ucred of SO_PEERCRED, unix(7): process, user, group."""


SO_PEERPIDFD: Final = 77
"""Since Linux 6.5; not in Python's socket module yet."""


class KernelImage:
    """Of the process at the other end of a connection."""

    def __init__(self, pid: int, process: int) -> None:
        """`process` is a pidfd of process `pid`, which is closed with this."""
        self._pid = pid
        self._process = process
        self._memory = -1
        self._shared: list[tuple[int, int, int]] = []
        self._base: int | None = None

    @classmethod
    def of(cls, connection: socket.socket, kernel: Callable[[], int | None]) -> Self | None:
        """None where this process is the other end, or it is not sure which process is: whoever has connected may have
        ended since, and its number may be another's. Before Linux 6.5 it is sure of a child of ours alone, which is the
        process `kernel`."""
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid, _, _ = _CREDENTIALS.unpack(raw)
        if pid in (0, os.getpid()):
            return None
        try:
            return cls(pid, _process_of(connection))
        except OSError as error:
            if error.errno != errno.ENOPROTOOPT or kernel() != pid:
                return None
        try:
            return cls(pid, os.pidfd_open(pid))
        except OSError:
            return None

    def shares(self, start: int, offset: int, descriptor: int) -> None:
        """The process has mapped the file from `offset` on at guest address `start`."""
        self._shared.append((os.fstat(descriptor).st_ino, offset, start))
        self._base = None

    def read(self, address: int, length: int) -> bytes:
        """What is at a guest address. OSError."""
        if self._base is None:
            self._base = self._open()
        return os.pread(self._memory, length, self._base + address)

    def _open(self) -> int:
        """The process's own address of guest address 0. From here on its memory is open: that stays this process's,
        whoever gets its number."""
        if self._memory < 0:
            memory = os.open(f"/proc/{self._pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
            if self._has_ended:  # the number may have been another's
                os.close(memory)
                raise failure(errno.ESRCH)
            self._memory = memory
        base = self._find_base()
        if self._has_ended:
            raise failure(errno.ESRCH)
        return base

    @property
    def _has_ended(self) -> bool:
        return bool(select.select([self._process], [], [], 0)[0])

    def _find_base(self) -> int:
        """Told by where the shared memory is (proc(5), maps)."""
        with open(f"/proc/{self._pid}/maps") as lines:
            for line in lines:
                addresses, _, offset, _, inode = line.split()[:5]
                for shared, at, start in self._shared:
                    if (int(inode), int(offset, 16)) == (shared, at):
                        return int(addresses.partition("-")[0], 16) - start
        raise failure(errno.EFAULT)

    def close(self) -> None:
        """Let go of the process."""
        os.close(self._process)
        if self._memory >= 0:
            os.close(self._memory)


def _process_of(connection: socket.socket) -> int:
    """A pidfd of the process at the other end. OSError: ENOPROTOOPT where the host has none."""
    return connection.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD)
