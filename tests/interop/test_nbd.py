"""Our NBD server under the clients that people use, and our client at the servers that they run."""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trio

from tests import needs
from tests.contract.block import check_block_device, check_read_only
from tests.nbd.devices import connect, serving
from umlfs import sources
from umlfs.block import BlockDevice, Extent, ExtentKind
from umlfs.blocks.raw import RawDevice, open_raw

pytestmark = pytest.mark.interop

MIB = 1 << 20
SIZE = 32 * MIB


async def run(program: str, *args: str | Path) -> str:
    """What a program prints; fails the test if the program fails."""
    command = [needs.program(program), *map(str, args)]
    ended = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
    assert ended.returncode == 0, ended.stderr.decode() + ended.stdout.decode()
    return ended.stdout.decode()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An image with data at both ends and holes in between."""
    path = tmp_path / "image"
    with path.open("wb") as file:
        file.write(random.Random(1).randbytes(3 * MIB))
        file.seek(20 * MIB)
        file.write(random.Random(2).randbytes(MIB))
        file.truncate(SIZE)
    return path


@contextlib.asynccontextmanager
async def served(image: Path, *, name: str = "", read_only: bool = False) -> AsyncIterator[tuple[str, RawDevice]]:
    device = open_raw(image, read_only=read_only)
    try:
        async with serving(device, image.parent / "nbd", name=name) as uri:
            yield uri, device
    finally:
        await device.close()


async def test_nbdinfo(image: Path) -> None:
    async with served(image, name="disk") as (uri, _):
        # Without what file(1) makes of its first bytes, which are random.
        found = json.loads(await run("nbdinfo", "--no-content", "--json", uri))
        export = found["exports"][0]
        assert (found["protocol"], found["structured"]) == ("newstyle-fixed", True)
        assert (export["export-name"], export["export-size"]) == ("disk", SIZE)
        assert export["contexts"] == ["base:allocation"]
        for ability in ("cache", "df", "flush", "fua", "multi_conn", "trim", "zero", "fast_zero"):
            assert export[f"can_{ability}"]
        assert [
            entry["export-name"] for entry in json.loads(await run("nbdinfo", "--list", "--json", uri))["exports"]
        ] == ["disk"]


async def test_nbdinfo_maps_holes(image: Path) -> None:
    async with served(image) as (uri, _):
        found = json.loads(await run("nbdinfo", "--map", "--json", uri))
        assert [(part["offset"], part["length"], part["type"]) for part in found] == [
            (0, 3 * MIB, 0),
            (3 * MIB, 17 * MIB, 3),
            (20 * MIB, MIB, 0),
            (21 * MIB, 11 * MIB, 3),
        ]


async def test_nbdcopy_both_ways(image: Path, tmp_path: Path) -> None:
    content = await trio.Path(image).read_bytes()
    async with served(image) as (uri, _):
        await run("nbdcopy", uri, tmp_path / "copy")
        assert (tmp_path / "copy").read_bytes() == content
    blank = tmp_path / "blank"
    blank.touch()
    os.truncate(blank, SIZE)
    async with served(blank) as (uri, _):
        await run("nbdcopy", "--flush", tmp_path / "copy", uri)
    assert blank.read_bytes() == content
    assert blank.stat().st_blocks * 512 < SIZE // 2


async def test_qemu_img(image: Path, tmp_path: Path) -> None:
    async with served(image) as (uri, _):
        await run("qemu-img", "convert", "-O", "qcow2", uri, tmp_path / "copy.qcow2")
        await run("qemu-img", "compare", "-f", "qcow2", "-F", "raw", tmp_path / "copy.qcow2", uri)
        found = json.loads(await run("qemu-img", "map", "--output=json", "-f", "raw", uri))
        assert [(part["start"], part["length"], part["data"]) for part in found] == [
            (0, 3 * MIB, True),
            (3 * MIB, 17 * MIB, False),
            (20 * MIB, MIB, True),
            (21 * MIB, 11 * MIB, False),
        ]
    blank = tmp_path / "blank"
    blank.touch()
    os.truncate(blank, SIZE)
    async with served(blank) as (uri, _):
        await run("qemu-img", "convert", "-n", "-f", "qcow2", "-O", "raw", tmp_path / "copy.qcow2", uri)
        await run("qemu-img", "compare", "-f", "raw", "-F", "raw", image, uri)


@pytest.mark.parametrize("cache", ["writeback", "writethrough", "none"])
async def test_qemu_io(image: Path, cache: str) -> None:
    commands = [
        "write -P 0x11 0 1M",
        "write -f -P 0x22 1M 64k",
        "write -z 2M 64k",
        "write -z -u 3M 1M",
        "discard 20M 512k",
        "aio_write -P 0x33 4M 2M",
        "aio_write -P 0x44 6M 4k",
        "aio_flush",
        "flush",
        "read -P 0x11 0 1M",
        "read -P 0x22 1M 64k",
        "read -P 0 2M 64k",
        "read -P 0 3M 1M",
        "read -P 0 20M 512k",
        "read -P 0x33 4M 2M",
        "read -P 0x44 6M 4k",
    ]
    async with served(image) as (uri, _):
        words = [word for command in commands for word in ("-c", command)]
        printed = await run("qemu-io", "-f", "raw", "-t", cache, "-d", "unmap", *words, uri)
        assert "failed" not in printed
    with image.open("rb") as file:
        content = file.read()
        assert content[: MIB + 65536] == b"\x11" * MIB + b"\x22" * 65536
        assert os.lseek(file.fileno(), 20 * MIB, os.SEEK_DATA) == 20 * MIB + 512 * 1024


async def test_qemu_io_on_a_read_only_export(image: Path) -> None:
    async with served(image, read_only=True) as (uri, _):
        await run("qemu-io", "-r", "-f", "raw", "-c", "read 0 1M", uri)
        command = [needs.program("qemu-io"), "-f", "raw", "-c", "write 0 4k", uri]
        ended = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
        assert ended.returncode != 0


async def test_an_odd_size(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(random.Random(3).randbytes(100_001))
    async with served(image) as (uri, _):
        assert (await run("nbdinfo", "--size", uri)).strip() == "100001"
        await run("nbdcopy", uri, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == image.read_bytes()


async def test_fio_verifies(image: Path) -> None:
    async with served(image) as (uri, _):
        load = ("--rw=randrw", "--bsrange=4k-256k", "--iodepth=16", "--size=16M", "--fsync=32", "--randseed=7")
        check = ("--verify=crc32c", "--verify_fatal=1", "--verify_state_save=0")
        await run("fio", "--name=verify", "--ioengine=nbd", f"--uri={uri}", *load, *check)


async def test_several_clients_at_once(image: Path) -> None:
    """Each writes its own part and reads it back, with many requests under way."""

    async def work(uri: str, number: int) -> None:
        part = f"{number * 8}M"
        pattern = f"-P {number + 1}"
        words = [f"aio_write {pattern} {number * 8 * MIB + step * 65536} 65536" for step in range(16)]
        words += ["aio_flush", "flush", f"read {pattern} {part} 1M"]
        printed = await run("qemu-io", "-f", "raw", *[word for w in words for word in ("-c", w)], uri)
        assert "failed" not in printed

    async with served(image) as (uri, _), trio.open_nursery() as nursery:
        for number in range(4):
            nursery.start_soon(work, uri, number)


# Servers that are not ours ----------------------------------------------------------------------


@contextlib.contextmanager
def peer(path: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """A server that listens at `path` for as long as the block runs."""
    with subprocess.Popen([needs.program(command[0]), *command[1:]]) as server:
        try:
            while not _listens(path) and server.poll() is None:
                os.sched_yield()
            yield server
        finally:
            server.terminate()


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


@pytest.fixture(params=["qemu-nbd", "nbdkit-file", "nbdkit-memory", "nbdkit-plain"])
def foreign(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A socket where somebody else serves a device of 1 MiB."""
    path, image = tmp_path / "peer", tmp_path / "peer-image"
    image.touch()
    os.truncate(image, MIB)
    nbdkit = ("nbdkit", "-f", "-U", str(path))
    commands = {
        "qemu-nbd": ("qemu-nbd", "-f", "raw", "-t", "--discard=unmap", "-e", "4", "-k", str(path), str(image)),
        "nbdkit-file": (*nbdkit, "file", str(image)),
        "nbdkit-memory": (*nbdkit, "memory", "1M"),
        # Without structured replies, and so without block status; and no zeroes but what is written.
        "nbdkit-plain": (*nbdkit, "--no-sr", "--filter=nozero", "memory", "1M"),
    }
    with peer(path, *commands[request.param]):
        yield path


async def test_contract_at_foreign_servers(foreign: Path) -> None:
    async def open_device() -> BlockDevice:
        return await connect(foreign)

    await check_block_device(open_device, rounds=40)


async def test_read_only_at_a_foreign_server(tmp_path: Path) -> None:
    with peer(tmp_path / "peer", "nbdkit", "-f", "-r", "-U", str(tmp_path / "peer"), "pattern", "1M"):
        device = await connect(tmp_path / "peer")
        await check_read_only(device)
        await device.close()


async def test_the_map_of_a_foreign_server(image: Path, tmp_path: Path) -> None:
    command = ("qemu-nbd", "-r", "-f", "raw", "-t", "-k", str(tmp_path / "peer"), str(image))
    with peer(tmp_path / "peer", *command):
        device = await connect(tmp_path / "peer")
        assert list(await device.extents(0, 21 * MIB)) == [
            Extent(0, 3 * MIB, ExtentKind.DATA),
            Extent(3 * MIB, 17 * MIB, ExtentKind.ZERO),
            Extent(20 * MIB, MIB, ExtentKind.DATA),
        ]
        await device.close()


async def test_a_foreign_server_that_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "peer"
    with peer(path, "nbdkit", "-f", "-U", str(path), "memory", "1M") as server:
        device = await connect(path)
        await device.flush()
        server.kill()
        server.wait()
        with pytest.raises(OSError, match="connection lost"):
            await device.flush()
        await device.close()


async def test_a_remote_image_backs_a_cow(image: Path, tmp_path: Path) -> None:
    path, cow = tmp_path / "peer", tmp_path / "image.cow"
    command = ("qemu-nbd", "-r", "-f", "raw", "-t", "-k", str(path), str(image))
    with peer(path, *command):
        changed = await trio.Path(image).read_bytes()
        changed = changed[: 2 * MIB]
        for number in range(2):
            device = await sources.parse(f"cow:{cow},nbd+unix:///?socket={path}").open()
            assert isinstance(device, BlockDevice)
            buffer = bytearray(2 * MIB)
            await device.read_into(0, [memoryview(buffer)])
            assert buffer == changed
            await device.write_from(number * MIB, [memoryview(b"\x77" * 512)])
            changed = changed[: number * MIB] + b"\x77" * 512 + changed[number * MIB + 512 :]
            await device.flush()
            await device.close()
