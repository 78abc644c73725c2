"""The first process of a guest as a program of nothing but system calls.

What a guest does before its first command is always the same: mount, load modules, mount again. In a shell each of
that is a process, and a fork and exec of busybox costs a UML guest some 10 ms; the call itself costs 0.1 ms. So
the calls are put together here, into a static program of a few kilobytes that makes one after the other and
ends by executing what comes next.

The program is for x86_64. It reports the first call that fails on its standard error, in a line that `complaint`
finds in the kernel's log, and exits with status 1 (which, of process 1, ends the guest).
"""

from __future__ import annotations

import errno
import os
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from umlfs.errors import UmlError

# Numbers of system calls and flags: the kernel's arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/linux.
_WRITE, _OPEN, _EXECVE, _CHDIR, _MKDIR, _CHROOT, _MOUNT, _EXIT_GROUP, _FINIT_MODULE = (
    1,
    2,
    59,
    80,
    83,
    161,
    165,
    231,
    313,
)

MS_RDONLY: Final = 1
MS_NOSUID: Final = 2
MS_NODEV: Final = 4
MS_BIND: Final = 4096
MS_MOVE: Final = 8192
MS_REC: Final = 16384


class _Last:
    """The result of the call before."""


_LAST: Final = _Last()

_Argument = int | bytes | tuple[bytes, ...] | _Last


@dataclass(frozen=True, slots=True)
class Call:
    """One system call: bytes stand for their address (with a final NUL), tuples for an array of such."""

    number: int
    arguments: tuple[_Argument, ...]
    purpose: str
    """What it is for: `mount /proc`."""
    tolerated: int = 0
    """An errno that is no failure."""


def mkdir(path: str, mode: int = 0o755) -> list[Call]:
    """Make a directory where there is none."""
    return [Call(_MKDIR, (os.fsencode(path), mode), f"make {path}", errno.EEXIST)]


def mount(source: str, target: str, kind: str, flags: int = 0, options: str = "") -> list[Call]:
    """Mount as mount(2); `options` are the filesystem's own."""
    words = (os.fsencode(source), os.fsencode(target), kind.encode())
    return [Call(_MOUNT, (*words, flags, os.fsencode(options)), f"mount {source} at {target}")]


def load_module(path: str) -> list[Call]:
    """Load the kernel module in the file `path`; one that is there already will do."""
    opened = Call(_OPEN, (os.fsencode(path), os.O_RDONLY | os.O_CLOEXEC), f"open {path}")
    return [opened, Call(_FINIT_MODULE, (_LAST, b"", 0), f"load {path}", errno.EEXIST)]


def write(path: str, data: bytes) -> list[Call]:
    """Write `data` to the file `path`, which must be there, by one call."""
    opened = Call(_OPEN, (os.fsencode(path), os.O_WRONLY | os.O_CLOEXEC), f"open {path}")
    return [opened, Call(_WRITE, (_LAST, data, len(data)), f"write to {path}")]


def enter_root(path: str) -> list[Call]:
    """Make the filesystem mounted at `path` the root, in the way of an initramfs (which cannot be left otherwise)."""
    return [
        Call(_CHDIR, (os.fsencode(path),), f"enter {path}"),
        Call(_MOUNT, (b".", b"/", b"", MS_MOVE, b""), f"move {path} to /"),
        Call(_CHROOT, (b".",), f"make {path} the root"),
    ]


def execute(arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> list[Call]:
    """Become the program `arguments[0]`."""
    words = tuple(map(os.fsencode, arguments))
    variables = tuple(os.fsencode(f"{name}={value}") for name, value in (environment or {}).items())
    return [Call(_EXECVE, (words[0], words, variables), f"execute {arguments[0]}")]


def program(*steps: Iterable[Call]) -> bytes:
    """The executable that makes all the calls of `steps` in turn."""
    return _Assembler().assemble([call for step in steps for call in step])


_COMPLAINT: Final = re.compile(rb"^umlfs: cannot (.*): errno +([0-9]{1,3})\r?$", re.MULTILINE)


def complaint(log: bytes) -> UmlError | None:
    """The failure of a starter that the kernel's log tells of, if there is one."""
    found = _COMPLAINT.search(log)
    if found is None:
        return None
    return UmlError(f"the guest cannot {found[1].decode(errors='replace')}: {os.strerror(int(found[2]))}")


_BASE: Final = 0x400000
_ELF_HEADER: Final = struct.Struct("<16sHHIQQQIHHHHHH")
_PROGRAM_HEADER: Final = struct.Struct("<IIQQQQQQ")
_HEADERS: Final = _ELF_HEADER.size + _PROGRAM_HEADER.size

# `mov register, imm64` and `mov register, rbx` for the registers of arguments: rdi rsi rdx r10 r8 r9.
_LOAD: Final = (b"\x48\xbf", b"\x48\xbe", b"\x48\xba", b"\x49\xba", b"\x49\xb8", b"\x49\xb9")
_COPY: Final = (b"\x48\x89\xdf", b"\x48\x89\xde", b"\x48\x89\xda", b"\x49\x89\xda", b"\x49\x89\xd8", b"\x49\x89\xd9")
_SYSCALL: Final = b"\x0f\x05"
_DIGITS: Final = b"    \n"


class _Assembler:
    """Code and data of one program.

    The data comes first, so its addresses are known when the code that follows is made. Two forward jumps only,
    both over code of a known length.
    """

    def __init__(self) -> None:
        self._data = bytearray()
        self._known: dict[bytes, int] = {}

    def assemble(self, calls: Sequence[Call]) -> bytes:
        digits = self._place(_DIGITS)
        parts = [self._prepare(call) for call in calls]
        self._data += bytes(-len(self._data) % 16)
        failure = _BASE + _HEADERS + len(self._data)
        code = self._failure(digits)
        entry = failure + len(code)
        for call, arguments, message, length in parts:
            code += self._call(call, arguments)
            code += self._check(call, message, length, failure, failure + len(code))
        code += _load(0, 0) + _number(_EXIT_GROUP) + _SYSCALL
        return _headers(entry, len(self._data) + len(code)) + self._data + code

    def _place(self, content: bytes) -> int:
        """The address of `content` in the data."""
        if content not in self._known:
            self._known[content] = _BASE + _HEADERS + len(self._data)
            self._data += content
        return self._known[content]

    def _prepare(self, call: Call) -> tuple[Call, list[int | None], int, int]:
        """The values of the call's arguments (None: the last result), and its message."""
        message = os.fsencode(f"umlfs: cannot {call.purpose.replace(chr(10), '?')}: errno")
        return call, [self._value(each) for each in call.arguments], self._place(message), len(message)

    def _value(self, argument: _Argument) -> int | None:
        match argument:
            case int():
                return argument
            case bytes():
                return self._place(argument + b"\0")
            case tuple():
                pointers = [self._place(each + b"\0") for each in argument]
                self._data += bytes(-len(self._data) % 8)
                return self._place(struct.pack(f"<{len(pointers) + 1}Q", *pointers, 0))
            case _:
                return None

    def _call(self, call: Call, arguments: Sequence[int | None]) -> bytes:
        loads = (_COPY[i] if value is None else _load(i, value) for i, value in enumerate(arguments))
        # The result goes to rbx, which no system call touches.
        return b"".join(loads) + _number(call.number) + _SYSCALL + b"\x48\x89\xc3"

    def _check(self, call: Call, message: int, length: int, failure: int, here: int) -> bytes:
        """Go on if the result is not negative (or tolerated), else to `failure` with the message in rsi and edx."""
        tolerate = b"\x83\xf8" + struct.pack("<b", -call.tolerated) if call.tolerated else b""
        give_up = _load(1, message) + b"\xba" + struct.pack("<I", length)
        skip = len(give_up) + 5
        if tolerate:
            tolerate += b"\x74" + bytes([skip])  # je
        go_on = b"\x48\x85\xc0\x79" + bytes([len(tolerate) + skip])  # test rax, rax; jns
        head = go_on + tolerate + give_up
        return head + b"\xe9" + struct.pack("<i", failure - (here + len(head) + 5))  # jmp

    def _failure(self, digits: int) -> bytearray:
        """Write the message, the errno in decimal, and exit with status 1."""
        write = _load(0, 2) + _number(_WRITE) + _SYSCALL
        to_decimal = (
            b"\xf7\xdb\x89\xd8"  # neg ebx; mov eax, ebx
            + _load(1, digits + len(_DIGITS) - 2)  # rsi: the last digit
            + b"\xb9\x0a\x00\x00\x00"  # mov ecx, 10
            + b"\x31\xd2\xf7\xf1"  # again: xor edx, edx; div ecx
            + b"\x80\xc2\x30\x88\x16"  # add dl, '0'; mov [rsi], dl
            + b"\x48\xff\xce\x85\xc0"  # dec rsi; test eax, eax
            + b"\x75\xf0"  # jnz again
        )
        line = _load(1, digits) + b"\xba" + struct.pack("<I", len(_DIGITS))
        return bytearray(write + to_decimal + line + write + _load(0, 1) + _number(_EXIT_GROUP) + _SYSCALL)


def _load(register: int, value: int) -> bytes:
    return _LOAD[register] + struct.pack("<q", value)


def _number(number: int) -> bytes:
    return b"\xb8" + struct.pack("<I", number)  # mov eax, imm32


def _headers(entry: int, length: int) -> bytes:
    """Of an executable with one segment, which may be read, written and executed."""
    identity = b"\x7fELF\x02\x01\x01"
    elf = _ELF_HEADER.pack(identity, 2, 62, 1, entry, _ELF_HEADER.size, 0, 0, 64, 56, 1, 0, 0, 0)
    return elf + _PROGRAM_HEADER.pack(1, 7, 0, _BASE, _BASE, _HEADERS + length, _HEADERS + length, 4096)
