"""Our virtio-blk against its peers, in one guest: `python -m tests.benchmarks.guest_blk [FOLDER]`.

The peers are qemu-storage-daemon's vhost-user-blk and the kernel's own ubd driver, each on a raw file of its own of the
same contents. fio runs in the guest, on each in turn; what counts is the ratio of the medians. A COW file over such a
file, all of its groups allocated, is compared with the raw file.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import trio

from runtime.jail.layers import Mode
from runtime.machine.machine import Machine, Options
from tests import needs
from tests.benchmarks.ratio import rounds
from tests.guest.disks import command
from umlfs.cow.create import create
from umlfs.cow.open import open_cow
from umlfs.ubd import parse
from umlfs.virtio.blk import DEVICE_ID

SIZE = 256 << 20
ROUNDS = rounds(5)
SECONDS = 1.5
JOBS = {
    "read 1 MiB": ("read", "1M", 1),
    "write 1 MiB": ("write", "1M", 1),
    "random read 4 KiB": ("randread", "4k", 1),
    "random write 4 KiB": ("randwrite", "4k", 1),
    "random read 4 KiB, depth 16": ("randread", "4k", 16),
    "random write 4 KiB, depth 16": ("randwrite", "4k", 16),
}


@contextmanager
def storage_daemon(image: Path, socket: Path) -> Iterator[None]:
    """qemu's, serving `image` as vhost-user-blk."""
    blockdev = f"driver=file,node-name=disk,filename={image},cache.direct=off,aio=threads,discard=unmap"
    export = f"type=vhost-user-blk,id=disk,node-name=disk,writable=on,addr.type=unix,addr.path={socket}"
    words = [needs.program("qemu-storage-daemon"), "--blockdev", blockdev, "--export", export]
    with subprocess.Popen(words) as daemon:
        try:
            while not socket.exists():
                time.sleep(0.01)
            yield
        finally:
            daemon.terminate()


def filled(path: Path) -> Path:
    block = os.urandom(1 << 20)
    with path.open("wb") as file:
        for _ in range(SIZE >> 20):
            file.write(block)
        os.fsync(file.fileno())
    return path


async def filled_cow(path: Path, backing: Path) -> None:
    """All groups allocated, so that nothing is left to copy up."""
    create(str(path), str(backing))
    device = await open_cow(str(path))
    for offset in range(0, SIZE, 1 << 20):
        await device.write_from(offset, [memoryview(bytes([offset >> 20 & 255]) * (1 << 20))])
    await device.flush()
    await device.close()


async def measure(machine: Machine, disk: str, job: str) -> float:
    """Bytes per second of one fio job."""
    mode, size, depth = JOBS[job]
    words = [
        "fio",
        "--name=job",
        f"--filename=/dev/{disk}",
        f"--rw={mode}",
        f"--bs={size}",
        f"--iodepth={depth}",
        "--ioengine=libaio",
        "--direct=1",
        f"--size={SIZE}",
        "--time_based",
        f"--runtime={SECONDS}",
        "--randrepeat=0",
        "--norandommap",
        "--output-format=json",
    ]
    found = json.loads(await command(machine, words))["jobs"][0]
    return float(max(found["read"]["bw_bytes"], found["write"]["bw_bytes"]))


async def compare(folder: Path, jobs: Sequence[str]) -> None:
    ours, qemu, own, backing = (filled(folder / name) for name in ("ours", "qemu", "own", "backing"))
    await filled_cow(folder / "cow", backing)
    with storage_daemon(qemu, folder / "socket"):
        options = Options(
            ubds=[parse(f"ubd0={ours}"), parse(f"ubd1={folder / 'cow'}")],
            arguments=[f"virtio_uml.device={folder / 'socket'}:{DEVICE_ID}", f"ubd2={own}"],
            memory=512 << 20,
            jail=Mode.OFF,  # the kernel's own driver opens its file by itself
        )
        async with Machine(options) as machine:
            disks = {"ours": "vda", "COW": "vdb", "qemu": "vdc", "kernel": "ubdc"}
            print(f"{'MB/s, median of ' + str(ROUNDS):30}" + "".join(f"{name:>9}" for name in disks), "  ratios")
            for job in jobs:
                report(job, await alternating(machine, disks, job))


async def alternating(machine: Machine, disks: dict[str, str], job: str) -> dict[str, float]:
    found: dict[str, list[float]] = {name: [] for name in disks}
    for number in range(ROUNDS):
        # In another order each time, and each with no work left over from the one before.
        names = list(disks)[number % len(disks) :] + list(disks)[: number % len(disks)]
        for name in names:
            await trio.to_thread.run_sync(os.sync)
            found[name].append(await measure(machine, disks[name], job))
    return {name: statistics.median(values) for name, values in found.items()}


def report(job: str, found: dict[str, float]) -> None:
    better = max(found["qemu"], found["kernel"])
    columns = "".join(f"{value / 1e6:9.1f}" for value in found.values())
    print(
        f"{job:30}{columns}   {found['ours'] / better:.2f} of the better peer, "
        f"COW {found['COW'] / found['ours']:.2f} of raw",
        flush=True,
    )


def time_to_open(folder: Path) -> None:
    """Opening a COW file over a sparse backing file of 1 TiB."""
    backing = folder / "huge"
    backing.touch()
    os.truncate(backing, 1 << 40)
    create(str(folder / "huge.cow"), str(backing))

    async def opened() -> float:
        start = time.perf_counter()
        device = await open_cow(str(folder / "huge.cow"))
        buffer = memoryview(bytearray(4096))
        await device.read_into(1 << 39, [buffer])
        taken = time.perf_counter() - start
        await device.close()
        return taken

    print(f"opening a COW file over 1 TiB, and a first read: {trio.run(opened) * 1e3:.1f} ms")


def main() -> None:
    jobs = [job for job in JOBS if not sys.argv[2:] or any(word in job for word in sys.argv[2:])]
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if sys.argv[1:] else None) as name:
        time_to_open(Path(name))
        trio.run(compare, Path(name), jobs)


if __name__ == "__main__":
    main()
