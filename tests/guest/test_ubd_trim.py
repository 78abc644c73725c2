"""TRIM: what a guest deletes comes back to the host, from raw images and from COW files."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from runtime.machine.machine import Machine, Options
from tests.contract.block import read
from tests.guest.disks import MIB, allocated, guest, make_filesystem, shell, specs
from umlfs.cow.open import open_cow
from umlfs.ubd import parse
from umlfs.ubd.device import open_ubd

pytestmark = pytest.mark.guest

SIZE = 32 * MIB
FILLED = 16 * MIB

FILL = """
for unit in a b c d; do
    mkdir -p /mnt/$unit
    options=; [ $unit = d ] && options="-o discard"
    mount $options /dev/ubd$unit /mnt/$unit
    head -c 16777216 /dev/urandom >/mnt/$unit/file
done
sync
"""
TRIM = """
rm /mnt/*/file
sync
fstrim /mnt/a
fstrim /mnt/b
fstrim /mnt/c 2>&1
sync
"""


async def test_deleted_files_give_their_space_back(tmp_path: Path) -> None:
    """`a` is a raw image, `b` a COW file, `c` has TRIM turned off, `d` is mounted so that it needs no fstrim."""
    raw, backing, without, mounted = (tmp_path / name for name in ("raw", "backing", "without", "mounted"))
    for path in (raw, backing, without, mounted):
        make_filesystem("ext4", path, SIZE)
    cow = tmp_path / "cow"
    words = (f"ubd0={raw}", f"ubd1={cow},{backing}", f"ubd2t={without}", f"ubd3={mounted}")
    async with Machine(Options(ubds=specs(*words))) as machine:
        await shell(machine, FILL)
        full = {path: allocated(path) for path in (raw, cow, without, mounted)}
        assert min(full.values()) > FILLED
        assert "not supported" in await shell(machine, TRIM, status=None)
        for path in (raw, cow, mounted):
            assert full[path] - allocated(path) > FILLED * 0.95, path
        assert allocated(without) >= full[without]


async def test_what_was_discarded_is_zero_and_never_stale(tmp_path: Path) -> None:
    """Through our driver, through the kernel's, and on the host: nothing of the backing file shines through."""
    backing, cow = tmp_path / "backing", tmp_path / "cow"
    backing.write_bytes(random.Random(1).randbytes(4 * MIB))
    await (await open_ubd(parse(f"ubd0={cow},{backing}"))).close()
    discard = "blkdiscard -o 4096 -l 1048576 /dev/ubda && blkdiscard -z -o 2097664 -l 512 /dev/ubda && "
    check = (
        "cmp -n 1048576 -i 4096:0 /dev/ubda /dev/zero && cmp -n 512 -i 2097664:0 /dev/ubda /dev/zero && "
        f"cmp -n 4096 /dev/ubda {backing} && cmp -n 1044480 -i 1052672 /dev/ubda {backing} && "
        f"cmp -i 2098176 /dev/ubda {backing} && echo right"
    )
    assert await guest(discard + check, f"ubd0={cow}") == "right\n"
    assert await guest(check, f"ubd0={cow}", native=True) == "right\n"
    device = await open_cow(str(cow))
    assert not any(await read(device, 4096, MIB))
    await device.close()
    assert allocated(cow) < 64 << 10
