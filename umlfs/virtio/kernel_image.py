"""What a UML kernel does not share: its own image, at the beginning of the guest's memory.

Its page of zeroes is there, which it has disks read where they have no request of their own for zeroes (below MD, for
one). A copy is read from the kernel's process.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import Final, Self

from umlfs.host.syscalls import failure

_CREDENTIALS: Final = struct.Struct("3i")
"""struct ucred of SO_PEERCRED, unix(7): process, user, group."""


class KernelImage:
    """Of the process at the other end of a connection."""

    def __init__(self, pid: int, memory: int) -> None:
        """`memory` is a descriptor of its /proc/PID/mem, which stays that process's, whoever gets its number."""
        self._pid = pid
        self._memory = memory
        self._shared: list[tuple[int, int, int]] = []
        self._base: int | None = None

    @classmethod
    def of(cls, connection: socket.socket) -> Self | None:
        """None where this process is the other end, or may not read it."""
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid, _, _ = _CREDENTIALS.unpack(raw)
        if pid in (0, os.getpid()):
            return None
        try:
            return cls(pid, os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC))
        except OSError:
            return None

    def shares(self, start: int, offset: int, descriptor: int) -> None:
        """The process has mapped the file from `offset` on at guest address `start`."""
        self._shared.append((os.fstat(descriptor).st_ino, offset, start))
        self._base = None

    def read(self, address: int, length: int) -> bytes:
        """What is at a guest address. OSError."""
        if self._base is None:
            self._base = self._find_base()
        return os.pread(self._memory, length, self._base + address)

    def _find_base(self) -> int:
        """The process's own address of guest address 0, told by where the shared memory is (proc(5), maps)."""
        with open(f"/proc/{self._pid}/maps") as lines:
            for line in lines:
                addresses, _, offset, _, inode = line.split()[:5]
                for shared, at, start in self._shared:
                    if (int(inode), int(offset, 16)) == (shared, at):
                        return int(addresses.partition("-")[0], 16) - start
        raise failure(errno.EFAULT)

    def close(self) -> None:
        os.close(self._memory)
