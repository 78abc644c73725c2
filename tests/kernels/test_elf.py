from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.kernels.elf import strip_debugging
from runtime.kernels.kernel import find_kernel


def installed(name: str) -> bytes:
    modules = find_kernel().modules
    assert modules is not None
    return next(modules.rglob(f"{name}.ko")).read_bytes()


def rows_of(module: bytes) -> list[tuple[int, ...]]:
    """The table of its sections."""
    table, count = struct.unpack_from("<Q", module, 40)[0], struct.unpack_from("<H", module, 60)[0]
    return [struct.unpack_from("<IIQQQQIIQQ", module, table + 64 * index) for index in range(count)]


def astray(module: bytes) -> int:
    """How many sections do not lie where their alignment wants them: of some kernels' modules many."""
    return sum(row[8] > 1 and row[1] != 8 and row[4] % row[8] != 0 for row in rows_of(module))


def sections(module: bytes) -> dict[bytes, tuple[int, bytes]]:
    """By name: number and contents."""
    names, rows = struct.unpack_from("<H", module, 62)[0], rows_of(module)
    found = {}
    for index, row in enumerate(rows):
        start = rows[names][4] + row[0]
        data = b"" if row[1] == 8 else module[row[4] : row[4] + row[5]]
        found[module[start : module.index(b"\0", start)]] = index, data
    return found


@pytest.mark.parametrize("name", ["fuse", "overlay", "virtiofs", "virtio_blk"])
def test_all_but_debugging_stays(name: str) -> None:
    module = installed(name)
    stripped = strip_debugging(module)
    assert len(stripped) < len(module) / 2
    before, after = sections(module), sections(stripped)
    kept = {key: value for key, value in before.items() if b"debug" not in key and key not in (b".comment", b"")}
    assert {key: value for key, value in after.items() if key in kept} == kept
    assert set(after) == {*kept, b""}
    assert astray(stripped) <= astray(module)


def test_twice_is_once() -> None:
    stripped = strip_debugging(installed("virtiofs"))
    assert strip_debugging(stripped) == stripped


def test_signed_module_stays_as_it_is() -> None:
    module = installed("virtiofs") + b"~Module signature appended~\n"
    assert strip_debugging(module) is module


MODULE = installed("virtiofs")


SECTIONS = struct.unpack_from("<Q", MODULE, 40)[0]
places = st.integers(0, 80) | st.integers(SECTIONS, len(MODULE)) | st.integers(0, len(MODULE))


@given(places, st.binary(max_size=64))
def test_damaged_modules_are_never_made_worse(offset: int, noise: bytes) -> None:
    """By a flip or a cut anywhere: no exception, and never longer."""
    assert len(strip_debugging(MODULE[:offset] + noise + MODULE[offset + len(noise) :])) <= len(MODULE) + 64
    assert strip_debugging(MODULE[:offset]) == MODULE[:offset] or offset == len(MODULE)


def test_senseless_numbers() -> None:
    """The place of the table of sections, and a section's offset, size and alignment, each far too large."""
    section = struct.unpack_from("<Q", MODULE, 40)[0] + 64
    for place in (40, section + 24, section + 32, section + 48):
        for number in (1 << 40, 1 << 62, (1 << 64) - 1):
            damaged = bytearray(MODULE)
            struct.pack_into("<Q", damaged, place, number)
            assert strip_debugging(bytes(damaged)) == damaged


@given(st.binary(max_size=200))
def test_anything(content: bytes) -> None:
    assert strip_debugging(content) == content
