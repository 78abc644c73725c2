"""The filter: decided as the kernel does, by running its program."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from runtime.jail import seccomp, syscall_names, syscalls

ALLOW, EPERM, ENOSYS, TELL = 0x7FFF0000, 0x00050001, 0x00050026, 0x7FC00000
X86_64, I386 = 0xC000003E, 0x40000003


def decide(program: bytes, number: int, *arguments: int, architecture: int = X86_64) -> int:
    """What the filter returns for a system call."""
    data = struct.pack("=iIQ6Q", number, architecture, 0, *(*arguments, *[0] * (6 - len(arguments))))
    code = list(struct.iter_unpack("=HBBI", program))
    place, value = 0, 0
    while True:
        operation, if_true, if_false, k = code[place]
        place += 1
        match operation:
            case 0x20:
                (value,) = struct.unpack_from("=I", data, k)
            case 0x06:
                return int(k)
            case 0x15 | 0x35 | 0x45:
                holds = {0x15: value == k, 0x35: value >= k, 0x45: bool(value & k)}[operation]
                place += if_true if holds else if_false


PROGRAM = seccomp.program()
NUMBERS = syscalls.numbers()


def test_names_and_numbers_agree() -> None:
    for name, number in {**NUMBERS, **syscalls.ABSENT}.items():
        assert syscall_names.name(number) == name
    assert syscall_names.name(99999) == "number 99999"


def test_every_system_call() -> None:
    for number in range(512):
        expected = EPERM
        if number in NUMBERS.values():
            expected = ALLOW
        elif number in syscalls.ABSENT.values():
            expected = ENOSYS
        if syscall_names.name(number) not in syscalls.VALUES:
            assert decide(PROGRAM, number) == expected, syscall_names.name(number)


def test_other_architectures() -> None:
    assert decide(PROGRAM, NUMBERS["read"], architecture=I386) == EPERM
    assert decide(PROGRAM, NUMBERS["read"] | 0x40000000) == EPERM


def refused() -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "ioctl", (0, 0x5412)  # TIOCSTI
    yield "ioctl", (0, 0x541C)  # TIOCLINUX
    for family in (2, 10, 16, 17, 31, 38, 40):
        yield "socket", (family,)
    for bit in (0x20000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000):
        yield "clone", (bit | 17,)
    yield "prctl", (28,)  # PR_SET_SECUREBITS
    yield "prctl", (47,)  # PR_CAP_AMBIENT
    yield "personality", (0x0020000,)
    yield "prlimit64", (1,)


@pytest.mark.parametrize(("name", "arguments"), list(refused()))
def test_arguments_that_are_refused(name: str, arguments: tuple[int, ...]) -> None:
    assert decide(PROGRAM, NUMBERS[name], *arguments) == EPERM
    assert decide(seccomp.program(tells=True), NUMBERS[name], *arguments) == TELL


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("ioctl", (0, 0x5401)), ("socket", (1,)), ("clone", (17,)), ("prctl", (15,)), ("personality", (0xFFFFFFFF,))],
)
def test_arguments_that_are_not(name: str, arguments: tuple[int, ...]) -> None:
    assert decide(PROGRAM, NUMBERS[name], *arguments) == ALLOW


@pytest.mark.parametrize(
    ("version", "allowed"), [("6.1.176", False), ("6.12.113", False), ("6.13", True), ("7.2.7", True)]
)
def test_execution_from_memory(version: str, allowed: bool) -> None:
    program = seccomp.program(seccomp.unused_by(version))
    assert decide(program, NUMBERS["memfd_create"]) == (ALLOW if allowed else EPERM)
