"""The filter of system calls, compiled from its table into the program of seccomp(2)."""

from __future__ import annotations

import errno
import os
import re
import struct
from collections.abc import Iterable
from typing import Final

from runtime.jail import syscalls

MACHINE: Final = "x86_64"
"""The one architecture that the table is for: that of the kernels that we run."""

_INSTRUCTION: Final = struct.Struct("=HBBI")
"""struct sock_filter: code, jump if true, jump if false, k."""
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
"""Offsets in struct seccomp_data; an argument has 8 bytes, the low ones first."""
AUDIT_ARCH: Final = 0xC000003E
"""AUDIT_ARCH_X86_64."""
_X32: Final = 0x40000000
_ALLOW: Final = 0x7FFF0000
_ERRNO: Final = 0x00050000
_TELL: Final = 0x7FC00000


def is_known() -> bool:
    """Whether there is a filter for this machine's architecture."""
    return os.uname().machine == MACHINE


FROM_MEMORY: Final = ("memfd_create", "execveat")
"""How kernels from 6.13 on start the processes of their guest; older ones have no use for it."""
FROM_MEMORY_SINCE: Final = (6, 13)


def unused_by(version: str) -> tuple[str, ...]:
    """The system calls of the table that a kernel of this version has no use for."""
    found = re.match(r"(\d+)\.(\d+)", version)
    return FROM_MEMORY if found and (int(found[1]), int(found[2])) < FROM_MEMORY_SINCE else ()


def program(never: Iterable[str] = (), *, tells: bool = False) -> bytes:
    """The filter, as an array of struct sock_filter, without the system calls called `never`. What it refuses fails
    with EPERM, or if it `tells` with whatever who hears of it answers."""
    refused = set(never)
    denied = _returns(_TELL if tells else _ERRNO | errno.EPERM)
    code = [
        _op(_LOAD, _ARCHITECTURE),
        *(_op(_EQUAL, AUDIT_ARCH, 1, 0), denied),
        _op(_LOAD, _NUMBER),
        *(_op(_AT_LEAST, _X32, 0, 1), denied),
    ]
    for name, number in syscalls.numbers().items():
        if name not in refused:
            code += _rule(name, number, denied)
    for number in syscalls.ABSENT.values():
        code += _when(number, [_returns(_ERRNO | errno.ENOSYS)])
    return b"".join([*code, denied])


def _rule(name: str, number: int, denied: bytes) -> list[bytes]:
    allowed = _returns(_ALLOW)
    if name in syscalls.VALUES:
        argument, values = syscalls.VALUES[name]
        checks = [line for value in values for line in (_op(_EQUAL, value, 0, 1), allowed)]
        return _when(number, [_op(_LOAD, _ARGUMENTS + 8 * argument), *checks, denied])
    if name in syscalls.FORBIDDEN_BITS:
        argument, bits = syscalls.FORBIDDEN_BITS[name]
        return _when(number, [_op(_LOAD, _ARGUMENTS + 8 * argument), _op(_ANY_BIT, bits, 0, 1), denied, allowed])
    return _when(number, [allowed])


def _when(number: int, body: list[bytes]) -> list[bytes]:
    """`body`, which ends with a return, for the system call of that number."""
    return [_op(_EQUAL, number, 0, len(body)), *body]


def _returns(action: int) -> bytes:
    return _op(_RETURN, action)


def _op(code: int, k: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return _INSTRUCTION.pack(code, if_true, if_false, k)
