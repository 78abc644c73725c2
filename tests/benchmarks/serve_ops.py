"""What one FUSE request costs, in microseconds: `python tests/benchmarks/serve_ops.py [DIRECTORY]`.

Each request goes the whole way: a descriptor chain in a ring, popped, decoded, answered, pushed. Once against a
provider that does nothing, which is the price of serving alone, and once against hostfs. Nothing waits: no socket,
no disk. The driver's own work is not counted. With UMLFS_PURE=1 nothing compiled is used.
"""

from __future__ import annotations

import os
import stat
import struct
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence

import trio

from hostfs import HostFilesystem
from tests.benchmarks.ratio import rounds
from tests.virtio.ring import DriverRing
from umlfs.filesystem import ROOT, Attr, Caller, DirSink, Entry, Filesystem
from umlfs.virtio.fs import VirtioFs
from umlfs.virtio.rings import Ring
from umlfs.virtio.virtqueue import GuestMemory, Region
from umlfs.wire.fuse import IN_HEADER, INIT_IN, READ_IN, WRITE_IN, Opcode

BASE = 1 << 28
BATCH = 24
"""Requests offered at once: those of 128 KiB just fit into the ring."""
RING = 1024
ROUNDS = rounds(9)
FILES = 24
NAMES = [b"file-with-a-name-%04d" % number for number in range(FILES)]
ATTR = Attr(7, stat.S_IFREG | 0o644, 1, 1000, 1000, 0, 1 << 20, 2048, 10**18 + 1, 10**18 + 2, 10**18 + 3)
SECOND = 10**9


class Stub(Filesystem):
    """Answers everything at once from nothing."""

    entry = Entry(7, ATTR, SECOND, SECOND)

    def forget(self, ino: int, count: int) -> None:
        pass

    def disconnect(self) -> None:
        pass

    async def lookup(self, parent: int, name: bytes) -> Entry:
        return self.entry

    async def getattr(self, ino: int, handle: int = 0) -> tuple[Attr, int]:
        return ATTR, SECOND

    async def read_into(self, ino: int, handle: int, offset: int, buffers: Sequence[memoryview]) -> int:
        return sum(map(len, buffers))

    async def write_from(
        self, ino: int, handle: int, offset: int, buffers: Sequence[memoryview], kill_set_id: bool = False
    ) -> int:
        return sum(map(len, buffers))

    async def readdir(self, ino: int, handle: int, offset: int, add: DirSink, plus: bool = False) -> None:
        for position, name in enumerate(NAMES[offset:], offset + 1):
            if not add(name, position, 7, stat.S_IFREG, self.entry):
                return


class Bench:
    """A device on a ring, without a front end."""

    def __init__(self, filesystem: Filesystem) -> None:
        memory = memoryview(bytearray(32 << 20))
        self.filesystem = filesystem
        self.driver = DriverRing(memory, BASE, RING)
        desc, avail, used = self.driver.addresses
        self.queue = Ring(GuestMemory([Region(BASE, BASE, memory)]), RING, desc, avail, used)
        self.device = VirtioFs("bench", filesystem)

    async def answers(self, requests: Sequence[tuple[Sequence[bytes], Sequence[int]]]) -> tuple[float, list[bytes]]:
        """Serve `requests`; the seconds it took, and the answers."""
        for readable, writable in requests:
            self.driver.add(readable, writable)
        pop, push, handle = self.queue.pop, self.queue.push, self.device.handle
        at_once = self.device.at_once
        start = time.perf_counter()
        while (chain := pop()) is not None:
            if at_once is None or (written := at_once(chain.readable, chain.writable)) < 0:
                written = await handle(1, chain)
            push(chain.head, written)
        taken = time.perf_counter() - start
        return taken, [data for _, data in self.driver.collect()]

    async def measure(self, requests: Iterator[tuple[Sequence[bytes], Sequence[int]]]) -> float:
        """Microseconds per request, the best of some rounds over `BATCH` requests each."""
        best = 1e9
        for _ in range(ROUNDS):
            taken, answers = await self.answers([next(requests) for _ in range(BATCH)])
            for answer in answers:
                _, error, _ = struct.unpack_from("<IiQ", answer)
                assert error == 0, os.strerror(-error)
            best = min(best, taken)
        return best / BATCH * 1e6


def request(opcode: Opcode, node: int, *body: bytes) -> list[bytes]:
    length = IN_HEADER.size + sum(map(len, body))
    return [IN_HEADER.pack(length, opcode, 1, node, 1000, 1000, 1, 0, 0), *body]


async def prepare(bench: Bench) -> list[int]:
    """Mount, and fill a directory with files that hold something; their inode numbers."""
    init = INIT_IN.pack(7, 38, 131072, 0x7BFFFFFB) + struct.pack("<II40x", 9, 0)
    await bench.answers([(request(Opcode.INIT, 0, init), [16, 64])])
    if isinstance(bench.filesystem, Stub):
        return [7]
    filesystem, inos = bench.filesystem, []
    caller = Caller(os.geteuid(), os.getegid(), 1)
    for name in NAMES:
        entry, _ = await filesystem.create(ROOT, name, 0o644, os.O_RDWR | os.O_CREAT, 0, caller)
        await filesystem.write_from(entry.ino, 0, 0, [memoryview(bytes(160 * 1024))])
        inos.append(entry.ino)
    return inos


async def figures(filesystem: Filesystem) -> list[tuple[str, float]]:
    """What each kind of request costs."""
    bench = Bench(filesystem)
    inos = await prepare(bench)

    def over(items: Sequence[bytes] | Sequence[int]) -> Iterator[int]:
        number = 0
        while True:
            yield number % len(items)
            number += 1

    def data(opcode: Opcode, size: int) -> Iterator[tuple[list[bytes], list[int]]]:
        for index in over(inos):
            if opcode is Opcode.WRITE:
                arguments = WRITE_IN.pack(0, 0, size, 0, 0, 2, 0)
                yield request(opcode, inos[index], arguments, *[bytes(4096)] * (size // 4096)), [16, 8]
            else:
                yield request(opcode, inos[index], READ_IN.pack(0, 0, size, 0, 0, 0, 0)), [16, *[4096] * (size // 4096)]

    listing = READ_IN.pack(0, 0, 4096, 0, 0, 0, 0)
    plus = ((request(Opcode.READDIRPLUS, ROOT, listing), [16, 4096]) for _ in iter(int, 1))
    plain = ((request(Opcode.READDIR, ROOT, listing), [16, 4096]) for _ in iter(int, 1))
    return [
        (
            "LOOKUP",
            await bench.measure((request(Opcode.LOOKUP, ROOT, NAMES[i] + b"\0"), [16, 128]) for i in over(NAMES)),
        ),
        (
            "GETATTR",
            await bench.measure((request(Opcode.GETATTR, inos[i], bytes(16)), [16, 104]) for i in over(inos)),
        ),
        ("READ 4 KiB", await bench.measure(data(Opcode.READ, 4096))),
        ("READ 128 KiB", await bench.measure(data(Opcode.READ, 131072))),
        ("WRITE 4 KiB", await bench.measure(data(Opcode.WRITE, 4096))),
        ("READDIR of 24 names", await bench.measure(plain)),
        ("READDIRPLUS of 24 names", await bench.measure(plus)),
    ]


async def main(parent: str | None) -> None:
    stub = await figures(Stub())
    with tempfile.TemporaryDirectory(dir=parent) as directory:
        filesystem = HostFilesystem(directory)
        hostfs = await figures(filesystem)
        await filesystem.close()
    print(f"{'microseconds':24}{'stub':>9}{'hostfs':>9}")
    for (title, bare), (_, real) in zip(stub, hostfs, strict=True):
        print(f"{title:24}{bare:9.2f}{real:9.2f}")


if __name__ == "__main__":
    trio.run(main, sys.argv[1] if len(sys.argv) > 1 else None)
