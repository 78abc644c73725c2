"""A power cut, and kill -9, at any moment: what was flushed is there, what was not is old or new, nothing else."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import trio

from tests.cow.files import assert_whole_groups, bitmap_of, contents, pair, whole
from umlfs.block import BlockDevice, Extent, ExtentKind
from umlfs.blocks.raw import open_raw
from umlfs.cow.device import CowDevice
from umlfs.cow.header import SECTOR

SIZE = 128 << 10
TASKS = 4
STEPS = 400


class PowerCut(Exception):
    pass


class Forgetful:
    """A storage that forgets, when the power is cut, any part of what was not flushed: sector by sector."""

    def __init__(self, content: bytes, chance: random.Random) -> None:
        self.present = bytearray(content)
        self.durable = bytearray(content)
        self.pending: list[tuple[int, bytes]] = []
        self.chance = chance
        self.steps = chance.randrange(STEPS)

    async def step(self) -> None:
        self.steps -= 1
        if self.steps < 0:
            raise PowerCut
        await trio.lowlevel.checkpoint()

    async def read_into(self, offset: int, buffers: Sequence[memoryview]) -> int:
        await self.step()
        start = offset
        for buffer in buffers:
            buffer[:] = self.present[offset : offset + len(buffer)]
            offset += len(buffer)
        return offset - start

    async def write_from(self, offset: int, buffers: Sequence[memoryview]) -> None:
        data = b"".join(buffers)
        self.present[offset : offset + len(data)] = data
        self.pending += [(offset + at, data[at : at + SECTOR]) for at in range(0, len(data), SECTOR)]
        await self.step()

    async def flush(self) -> None:
        pending, self.pending = self.pending, []
        try:
            await self.step()
        except BaseException:
            self.pending = pending + self.pending
            raise
        self.apply(self.durable, pending)

    async def punch(self, offset: int, length: int) -> None:
        await self.write_from(offset, [memoryview(bytes(length))])

    zero = write_zeroes = punch

    async def extents(self, offset: int, length: int) -> list[Extent]:
        return [Extent(offset, length, ExtentKind.DATA)]

    def close(self) -> None:
        pass

    @staticmethod
    def apply(content: bytearray, writes: Sequence[tuple[int, bytes]]) -> None:
        for offset, data in writes:
            content[offset : offset + len(data)] = data

    def after_the_cut(self) -> bytes:
        content = bytearray(self.durable)
        kept = [write for write in self.pending if self.chance.random() < 0.5]
        self.chance.shuffle(kept)
        self.apply(content, kept)
        return bytes(content)


class Model:
    """For each sector what it may hold after a crash: what was last flushed, and all that was written since."""

    def __init__(self, content: bytes) -> None:
        self.values = [[content[at : at + SECTOR]] for at in range(0, len(content), SECTOR)]
        self.first = [0] * len(self.values)
        """The number of the oldest possible value of each sector, counted from the beginning."""
        self.answered = [0] * len(self.values)
        """The number of the last one whose write was answered."""

    async def write(self, device: BlockDevice, sector: int, data: bytes) -> None:
        self.values[sector].append(data)
        if any(data):
            await device.write_from(sector * SECTOR, [memoryview(data)])
        else:
            await device.write_zeroes(sector * SECTOR, SECTOR)
        self.answered[sector] = self.first[sector] + len(self.values[sector]) - 1

    async def flush(self, device: BlockDevice) -> None:
        sure = list(self.answered)
        await device.flush()
        for sector, number in enumerate(sure):
            del self.values[sector][: max(0, number - self.first[sector])]
            self.first[sector] = max(number, self.first[sector])

    def check(self, content: bytes) -> None:
        for sector, values in enumerate(self.values):
            assert content[sector * SECTOR : (sector + 1) * SECTOR] in values, f"sector {sector}"

    def check_answered(self, content: bytes) -> None:
        """Without a crash every answered write is there, unless another of the same sector was begun."""
        for sector, values in enumerate(self.values):
            if self.answered[sector] == self.first[sector] + len(values) - 1:
                assert content[sector * SECTOR : (sector + 1) * SECTOR] == values[-1], f"sector {sector}"


async def work(device: BlockDevice, model: Model, task: int, chance: random.Random) -> None:
    """Write the sectors that are this task's, for ever, next to those of the others."""
    while True:
        sector = chance.randrange(SIZE // SECTOR // TASKS) * TASKS + task
        await model.write(
            device, sector, chance.choice((chance.randbytes(SECTOR), chance.randbytes(SECTOR), bytes(SECTOR)))
        )
        if chance.random() < 0.1:
            await model.flush(device)


async def until_the_cut(storage: Forgetful, cow: Path, backing: Path, seed: int) -> tuple[Model, bytes]:
    model = Model(await trio.Path(backing).read_bytes())
    device = CowDevice(storage, bitmap_of(cow)[0], open_raw(backing, read_only=True))
    try:
        async with trio.open_nursery() as nursery:
            for task in range(TASKS):
                nursery.start_soon(work, device, model, task, random.Random(seed * TASKS + task))
    except* PowerCut:
        pass
    after = storage.after_the_cut()
    storage.steps = 1 << 30
    model.check_answered(await whole(device))
    await device.backing.close()
    return model, after


async def test_power_cut(tmp_path: Path, long: bool) -> None:
    cow, backing = pair(tmp_path, SIZE)
    fresh = cow.read_bytes()
    for seed in range(200 if long else 25):
        storage = Forgetful(fresh, random.Random(seed))
        model, after = await until_the_cut(storage, cow, backing, seed)
        cow.write_bytes(after)
        model.check(await contents(cow))


WRITER = """
import random, sys, trio
from umlfs.cow.open import open_cow
from tests.cow.test_crash import operations, perform
async def main():
    device = await open_cow(sys.argv[1])
    for number, operation in enumerate(operations(int(sys.argv[2])), 1):
        await perform(device, operation)
        if not number % 7:
            await device.flush()
            print(number, flush=True)
trio.run(main)
"""

Operation = tuple[int, bytes]


def operations(seed: int) -> Iterator[Operation]:
    """What the writer does: (first sector, data), where no data stands for 8 discarded sectors."""
    chance = random.Random(seed)
    while True:
        length = chance.choice((0, 1, 3, 8, 20))
        yield chance.randrange(SIZE // SECTOR - 20), chance.randbytes(length * SECTOR)


async def perform(device: BlockDevice, operation: Operation) -> None:
    sector, data = operation
    if data:
        await device.write_from(sector * SECTOR, [memoryview(data)])
    else:
        await device.discard(sector * SECTOR, 8 * SECTOR)


def possible(content: bytes, seed: int, flushed: int) -> list[set[bytes]]:
    """What each sector may hold when `flushed` operations are sure, and at most 14 more were begun."""
    sectors = [{content[at : at + SECTOR]} for at in range(0, len(content), SECTOR)]
    for number, (sector, data) in enumerate(islice(operations(seed), flushed + 14)):
        data = data or bytes(8 * SECTOR)
        for at in range(0, len(data), SECTOR):
            values = sectors[sector + at // SECTOR]
            if number < flushed:
                values.clear()
            values.add(data[at : at + SECTOR])
    return sectors


def kill_while_writing(cow: Path, seed: int) -> int:
    """Run the writer and kill it; how many operations it had flushed, as far as it told."""
    command = [sys.executable, "-c", WRITER, str(cow), str(seed)]
    flushed = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        for _ in range(random.Random(seed).randrange(1, 40)):
            flushed = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        for line in process.stdout:
            flushed = int(line)
    return flushed


async def test_killed(tmp_path: Path, long: bool) -> None:
    for seed in range(200 if long else 6):
        folder = tmp_path / str(seed)
        folder.mkdir()
        cow, backing = pair(folder, SIZE)
        flushed = await trio.to_thread.run_sync(kill_while_writing, cow, seed)
        found = await contents(cow)
        for sector, values in enumerate(possible(backing.read_bytes(), seed, flushed)):
            assert found[sector * SECTOR : (sector + 1) * SECTOR] in values, f"seed {seed}, sector {sector}"
        assert_whole_groups(cow)
