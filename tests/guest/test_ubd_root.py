"""Booting from the filesystem in an image: thrown away unless --rw, and clean afterwards."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import trio

from runtime.guest.initramfs import find_busybox
from runtime.machine.machine import Machine, Options
from tests import needs
from tests.guest.disks import MIB, command, make_filesystem, shell, specs
from umlfs.blocks import sparse
from umlfs.cow.create import create
from umlfs.cow.merge import merge

pytestmark = pytest.mark.guest

SIZES = {"ext4": 32 * MIB, "xfs": 320 * MIB, "btrfs": 128 * MIB}
CHECKS = {"ext4": ("e2fsck", "-fn"), "xfs": ("xfs_repair", "-n"), "btrfs": ("btrfs", "check")}
PLACES = "bin proc sys dev run tmp lost"

POPULATE = """
mount /dev/ubda /mnt
cd /mnt
mkdir -p {places}
cp {busybox} bin/busybox
for applet in sh cat ls md5sum sync; do ln -s busybox bin/$applet; done
echo first >file
sync
for number in 1 2 3 4 5 6 7 8; do mkdir dir$number; echo $number >dir$number/file; sync -f .; done
"""


def copy(source: Path, target: Path) -> None:
    """With its holes."""
    subprocess.run(["cp", "--sparse=always", source, target], check=True)


async def make_root(kind: str, folder: Path) -> tuple[Path, Path]:
    """An image with a small userland in it, and one as a power cut leaves it: its journal is to be replayed."""
    image, cut = make_filesystem(kind, folder / "image", SIZES[kind]), folder / "cut"
    async with Machine(Options(ubds=specs(f"ubd0={image}"))) as machine:
        await shell(machine, POPULATE.format(places=PLACES, busybox=shutil.which(find_busybox())))
        await trio.to_thread.run_sync(copy, image, cut)
    return image, cut


async def run_in(root: str, script: str, *, writable: bool) -> str:
    options = Options(root=root, writable=writable)
    async with Machine(options) as machine:
        return await command(machine, ["/bin/busybox", "sh", "-c", script])


def require_clean(kind: str, image: Path) -> None:
    checker, *words = CHECKS[kind]
    done = subprocess.run([needs.program(checker), *words, image], capture_output=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout + done.stderr


def fingerprint(path: Path) -> str:
    """Of all bytes in a sparse file that are not zero, and where they are."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        for start, end, has_data in sparse.segments(file.fileno(), 0, path.stat().st_size):
            for offset in range(start, end if has_data else start, BLOCK):
                block = os.pread(file.fileno(), BLOCK, offset)
                if block != bytes(len(block)):
                    found.update(b"%d " % offset + block)
    return found.hexdigest()


BLOCK = 4096
LOOK = "cat /file /dir8/file; echo other >/file; echo new >/new; cat /file /new; cat /proc/mounts"


@pytest.mark.parametrize("kind", ["ext4", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("xfs", "btrfs"))])
async def test_roots_in_images(kind: str, tmp_path: Path) -> None:
    image, cut = await make_root(kind, tmp_path)
    require_clean(kind, image)
    cow = tmp_path / "cow"
    create(str(cow), str(cut))
    before = [fingerprint(path) for path in (image, cut, cow)]
    for root in (f"raw:{image}", f"raw:{cut}", f"cow:{cow}"):
        said = await run_in(root, LOOK, writable=False)
        assert said.startswith("first\n8\nother\nnew\n"), "the journal was not replayed"
        assert " / overlay" in said
    assert [fingerprint(path) for path in (image, cut, cow)] == before
    for root in (f"cow:{cow}", f"raw:{image}"):
        said = await run_in(root, LOOK, writable=True)
        assert said.startswith("first\n8\nother\nnew\n"), said
        assert f" / {kind} rw" in said
    merge(str(cow), str(tmp_path / "merged"))
    for path in (image, tmp_path / "merged"):
        require_clean(kind, path)
