"""What a guest was told is durable survives: a device that forgets the rest, and kill -9 of the serving process."""

from __future__ import annotations

import hashlib
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from runtime.machine.disk import Disk
from runtime.machine.machine import Machine, Options
from tests.cow.files import assert_whole_groups
from tests.cow.test_crash import Forgetful
from tests.guest.disks import MIB, SECONDS, Heard, command, content, make_filesystem, shell, specs
from umlfs.blocks.raw import RawDevice, open_raw
from umlfs.cow.check import Severity, check, worst
from umlfs.cow.create import create
from umlfs.cow.device import CowDevice
from umlfs.cow.file import header_at
from umlfs.errors import UmlError
from umlfs.ubd import parse
from umlfs.ubd.device import open_ubd

pytestmark = pytest.mark.guest

# Power cuts -----------------------------------------------------------------------------------

WRITER = """
import os, sys
number = 0
while True:
    number += 1
    for place in sys.argv[1:]:
        path = f"{place}/{number % 40}"
        with open(path + ".new", "wb") as file:
            file.write(b"%d\\n" % number * (1 + number * 7 % 900))
            file.flush()
            os.fsync(file.fileno())
        os.rename(path + ".new", path)
        folder = os.open(place, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
        with open(f"{place}/never-synced", "ab") as file:
            file.write(b"x" * 5000)
    print(number, flush=True)
"""
VERIFIER = """
import sys
numbers = int(sys.argv[1])
for place in sys.argv[2:]:
    for name in range(40):
        last = max((n for n in range(numbers + 1) if n % 40 == name and n), default=None)
        if last is None:
            continue
        content = open(f"{place}/{name}", "rb").read()
        found = int(content.split()[0])
        assert found >= last and found % 40 == name, (place, name, found, last)
        assert content == b"%d\\n" % found * (1 + found * 7 % 900), (place, name)
print("whole")
"""
SIZE = 24 * MIB
NEVER = 1 << 60


def python(program: str, *words: str) -> list[str]:
    return ["/usr/bin/python3", "-c", program, *words]


def forgetful(content: bytes, seed: int) -> Forgetful:
    storage = Forgetful(content, random.Random(seed))
    storage.steps = NEVER
    return storage


async def test_synced_files_survive_a_device_that_forgets(tmp_path: Path) -> None:
    """The power goes at random moments while a guest writes files and syncs them, on a raw image and on a COW file."""
    image, cow = make_filesystem("ext4", tmp_path / "image", SIZE), tmp_path / "cow"
    create(str(cow), str(image))
    raw_storage, cow_storage = forgetful(content(image), 1), forgetful(content(cow), 2)
    disks = [
        Disk("plain", RawDevice(raw_storage, SIZE)),
        Disk("layer", CowDevice(cow_storage, header_at(str(cow)), open_raw(image, read_only=True))),
    ]
    cuts = []
    async with Machine(Options(disks=disks)) as machine:
        await shell(machine, "mkdir /mnt/p /mnt/l; mount /dev/plain /mnt/p; mount /dev/layer /mnt/l")
        said = Heard()
        job = machine.start(python(WRITER, "/mnt/p", "/mnt/l"), stdout=said)
        for number in (3, 30, 41, 77, 90):
            await said.line(b"%d" % number)
            told = int(said.data.split()[-1])
            cuts.append((told, raw_storage.after_the_cut(), cow_storage.after_the_cut()))
        job.signal("KILL")
        await job.wait()
    for disk in disks:
        await disk.device.close()
    words, script = [], ""
    for unit, (_, plain, layer) in enumerate(cuts):
        Path(tmp_path, f"plain{unit}").write_bytes(plain)
        Path(tmp_path, f"layer{unit}").write_bytes(layer)
        assert worst(check(str(tmp_path / f"layer{unit}"))) is not Severity.ERROR
        for name, letter in ((f"plain{unit}", "acegi"[unit]), (f"layer{unit}", "bdfhj"[unit])):
            words.append(f"ubd{letter}={tmp_path / name}")
            script += f"mkdir /mnt/{name}; mount /dev/ubd{letter} /mnt/{name} || exit\n"
    async with Machine(Options(ubds=specs(*words))) as machine:
        await shell(machine, script)
        for unit, (told, _, _) in enumerate(cuts):
            places = (f"/mnt/plain{unit}", f"/mnt/layer{unit}")
            assert await command(machine, python(VERIFIER, str(told), *places)) == "whole\n"


# kill -9 --------------------------------------------------------------------------------------

BLOCK = 4096
BLOCKS = 256

BLOCK_WRITER = """
import os, random, sys
chance = random.Random(int(sys.argv[1]))
disks = [os.open(path, os.O_WRONLY) for path in sys.argv[2:]]
number = 0
while True:
    batch = []
    for _ in range(chance.randrange(1, 12)):
        number += 1
        where = chance.randrange(256)
        for disk in disks:
            os.pwrite(disk, b"%016d" % number * 256, where * 4096)
        batch.append((number, where))
    for disk in disks:
        os.fsync(disk)
    print(*(f"{number}@{where}" for number, where in batch), flush=True)
"""
SERVE = "from runtime.cli import main; main()"


async def kill_while_serving(folder: Path, seed: int) -> dict[int, int]:
    """`uml run` with a guest that writes to a COW file and a raw image, killed at a random moment. What the guest
    was told is durable: for each block the number last written to it."""
    words = [f"--ubd=ubd0={folder}/cow", f"--ubd=ubd1={folder}/raw"]
    guest = python(BLOCK_WRITER, str(seed), "/dev/ubda", "/dev/ubdb")
    uml = [sys.executable, "-c", SERVE, "run", *words, "--", *guest]
    process = await trio.lowlevel.open_process(
        uml, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    said = b""
    with trio.fail_after(SECONDS):
        while b"\n" not in said:
            said += await process.stdout.receive_some()
            assert said, await process.stderr.receive_some()
        await trio.sleep(random.Random(seed).random() * 0.5)
        process.send_signal(signal.SIGKILL)
        await process.wait()
        async for chunk in process.stdout:
            said += chunk
    await process.stdout.aclose()
    await process.stderr.aclose()
    durable: dict[int, int] = {}
    for line in said[: said.rfind(b"\n")].split(b"\n"):
        for word in line.split():
            number, _, where = word.partition(b"@")
            durable[int(where)] = int(number)
    return durable


def require_durable(data: bytes, backing: bytes, durable: dict[int, int], name: str) -> None:
    for where in range(BLOCKS):
        block = data[where * BLOCK : (where + 1) * BLOCK]
        if where not in durable and block == backing[where * BLOCK : (where + 1) * BLOCK]:
            continue
        # A block is written by pages and groups as a whole: it holds this or a later number.
        assert block == block[:16] * (BLOCK // 16), (name, where)
        assert int(block[:16]) >= durable.get(where, 0), (name, where)


async def read_by_ubd(path: Path) -> bytes:
    device = await open_ubd(parse(f"ubd0r={path}"))
    data = bytearray(device.size)
    await device.read_into(0, [memoryview(data)])
    await device.close()
    return bytes(data)


AT_ONCE = 8
"""Rounds whose files one guest checks: twice as many disks are all that the kernel's driver takes."""
BATCHES = [(0, 3), *(pytest.param(batch, AT_ONCE, marks=pytest.mark.slow) for batch in range(25))]


@pytest.mark.parametrize(("batch", "rounds"), BATCHES)
async def test_kill_9_while_a_guest_writes(batch: int, rounds: int, tmp_path: Path) -> None:
    """Whatever a guest has synced is found by us, and by the kernel's own driver."""
    backing = random.Random(0).randbytes(BLOCKS * BLOCK)
    folders = [tmp_path / str(number) for number in range(rounds)]
    for number, folder in enumerate(folders):
        folder.mkdir()
        Path(folder, "backing").write_bytes(backing)
        Path(folder, "raw").write_bytes(backing)
        create(str(folder / "cow"), str(folder / "backing"))
        durable = await kill_while_serving(folder, AT_ONCE * batch + number)
        for name in ("cow", "raw"):
            await free(folder / name)
            require_durable(await read_by_ubd(folder / name), backing, durable, f"{folder}/{name}")
        assert worst(check(str(folder / "cow"))) is not Severity.ERROR
        assert_whole_groups(folder / "cow")
    await require_the_kernel_agrees([folder / name for folder in folders for name in ("cow", "raw")])


async def free(path: Path) -> None:
    """Wait until whoever held the file is gone."""
    with trio.fail_after(SECONDS):
        while True:
            try:
                return await (await open_ubd(parse(f"ubd0={path}"))).close()
            except UmlError:
                await trio.sleep(0.01)


async def require_the_kernel_agrees(images: list[Path]) -> None:
    script = "".join(f"md5sum </dev/ubd{chr(ord('a') + unit)}\n" for unit in range(len(images)))
    ubds = specs(*(f"ubd{unit}={image}" for unit, image in enumerate(images)))
    async with Machine(Options(ubds=ubds, native_ubd=True)) as machine:
        sums = (await shell(machine, script)).splitlines()
    assert sums == [f"{hashlib.md5(await read_by_ubd(image)).hexdigest()}  -" for image in images]
