"""COW files between us and the kernel's own ubd driver, and locks between both."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from tests.contract.block import read
from tests.cow.files import BROKEN, as_version, change, contents, pair
from tests.cow.test_crash import SIZE, kill_while_writing
from umlfs.blocks.raw import open_file
from umlfs.cow.check import Severity, check, worst
from umlfs.cow.create import create
from umlfs.cow.file import header_at
from umlfs.cow.info import info
from umlfs.cow.merge import merge
from umlfs.cow.open import open_cow
from umlfs.errors import UmlError

pytestmark = pytest.mark.guest

Arguments = Callable[..., list[str]]

START = """\
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mkdir /host
/bin/busybox mount -t hostfs -o {folder} none /host
"""
END = "\n/bin/busybox sync\n/bin/busybox poweroff -f\n"
TIMEOUT = 60


def boot(arguments: Arguments, folder: Path, script: str, *words: str) -> str:
    """Run a script in the kernel, `folder` at /host; what the kernel and the script said."""
    command = arguments(START.format(folder=folder) + script + END, *words)
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT, check=False)
    return (done.stdout + done.stderr).decode(errors="replace")


def letter(unit: int) -> str:
    return "abcdefghijklmnop"[unit]


async def test_files_made_here_open_there(kernel_arguments: Arguments, tmp_path: Path) -> None:
    """Files of many sizes and versions, changed here; the kernel reads the same and writes into them."""
    made: list[tuple[Path, bytes]] = []
    for size, version in ((65536, 3), (1 << 20, 3), (1 << 20, 1), (1 << 20, 2), (1 << 20, BROKEN), (82020, 3)):
        folder = tmp_path / str(len(made))
        folder.mkdir()
        cow, _ = pair(folder, size)
        if version != 3:
            as_version(cow, version, "<" if version == 1 else ">")  # V1 is in the machine's own order
        made.append((cow, await change(cow, seed=size + version)))
    lines = [f"cat /dev/ubd{letter(unit)} >/host/{unit}/read\n" for unit in range(len(made))]
    lines += [f"echo -n written | dd of=/dev/ubd{letter(unit)} bs=512 seek=17 conv=sync\n" for unit in range(len(made))]
    words = [f"ubd{unit}={cow}" for unit, (cow, _) in enumerate(made)]
    said = boot(kernel_arguments, tmp_path, busybox("".join(lines)), *words)
    for cow, content in made:
        there = (cow.parent / "read").read_bytes()
        whole = len(content) // 4096 * 4096  # the driver repeats data behind an odd end of the backing file
        assert there[:whole] == content[:whole], said
        written = content[: 17 * 512] + b"written".ljust(512, b"\0") + content[18 * 512 :]
        assert await contents(cow) == written
        assert worst(check(str(cow))) is not Severity.ERROR


def busybox(script: str) -> str:
    return "/bin/busybox mkdir -p /bin\n/bin/busybox --install -s /bin\nPATH=/bin\n" + script


async def test_files_made_there_open_here(kernel_arguments: Arguments, tmp_path: Path) -> None:
    """The kernel makes the COW files and writes to them, to single sectors too; also far out in a large device."""
    chance = random.Random(5)
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_bytes(chance.randbytes(1 << 20))
    large.touch()
    os.truncate(large, 5 << 30)
    data = chance.randbytes(8192)
    (tmp_path / "data").write_bytes(data)
    script = "".join(
        f"dd if=/host/data of=/dev/ubd{unit} bs=512 seek={seek} count={count}\n"
        for unit, seek, count in (("a", 3, 1), ("a", 100, 16), ("b", 8 << 20, 16), ("b", (10 << 20) - 8, 8))
    )
    words = (f"ubd0={tmp_path}/a.cow,{small}", f"ubd1={tmp_path}/b.cow,{large}")
    said = boot(kernel_arguments, tmp_path, busybox(script), *words)
    expected = bytearray(small.read_bytes())
    expected[1536:2048], expected[51200:59392] = data[:512], data
    assert await contents(tmp_path / "a.cow") == expected, said
    device = await open_cow(str(tmp_path / "b.cow"))
    for offset, length in ((4 << 30, 8192), ((5 << 30) - 4096, 4096)):
        assert await read(device, offset, length) == data[:length]
    await device.close()
    for name in ("a.cow", "b.cow"):
        found = info(str(tmp_path / name))
        assert (found.valid, found.version, found.alignment) == (True, "V3", 4096)
    merge(str(tmp_path / "a.cow"), str(tmp_path / "new"))
    assert (tmp_path / "new").read_bytes() == expected


@contextmanager
def running(arguments: Arguments, folder: Path, script: str, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """A kernel that runs a script and stays; waited for until the script has made the file `ready`."""
    command = arguments(START.format(folder=folder) + script + "echo >/host/ready\nsleep 1000\n", *words)
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as kernel:
        try:
            deadline = time.monotonic() + TIMEOUT
            while not (folder / "ready").exists():
                assert kernel.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.02)
            yield kernel
        finally:
            os.killpg(kernel.pid, signal.SIGKILL)
            kernel.wait()
            with contextlib.suppress(ProcessLookupError):
                while time.monotonic() < deadline:  # its helpers hold the files until they are gone
                    os.killpg(kernel.pid, 0)
                    time.sleep(0.01)


def test_the_kernel_holds_the_locks(kernel_arguments: Arguments, tmp_path: Path) -> None:
    cow, backing = pair(tmp_path, 1 << 20)
    raw = tmp_path / "raw"
    raw.write_bytes(bytes(1 << 20))
    script = busybox("exec 3<>/dev/ubda 4<>/dev/ubdb\n")
    with running(kernel_arguments, tmp_path, script, f"ubd0={cow}", f"ubd1={raw}") as kernel:
        for path in (cow, backing, raw):
            with pytest.raises(UmlError, match=rf"in use by .*\(pid {kernel.pid}\)"):
                open_file(path)
        assert info(str(cow)).in_use_by == kernel.pid
        open_file(backing, read_only=True).close()
        for attempt in (
            lambda: merge(str(cow), str(tmp_path / "new")),
            lambda: create(str(cow), str(backing), force=True),
        ):
            with pytest.raises(UmlError, match="in use"):
                attempt()
        open_file(raw, lock=False).close()
    open_file(cow).close()


PANIC = "Kernel panic - not syncing: Segfault with no mm"
"""What Linux 6.12 comes to, of itself, when a disk of its own cannot be opened."""


async def test_we_hold_the_locks(kernel_arguments: Arguments, tmp_path: Path) -> None:
    cow, backing = pair(tmp_path, 1 << 20)
    create(str(tmp_path / "second"), str(backing))
    script = busybox("for unit in a b c d; do dd if=/dev/ubd$unit of=/host/$unit bs=4096 count=1; done\n")

    async def refused(*words: str) -> str:
        return await trio.to_thread.run_sync(lambda: boot(kernel_arguments, tmp_path, script, *words))

    device = await open_cow(str(cow))
    try:
        said = await refused(f"ubd0={cow}", f"ubd1={backing}", f"ubd2={tmp_path}/second", f"ubd3r={backing}")
        is_dead = PANIC in said
        if is_dead:
            said += await refused(f"ubd0={backing}")
    finally:
        await device.close()
    assert f"F_SETLK failed, file already locked by pid {os.getpid()}" in said  # of 7.2 for one of them
    assert f"Failed to open '{cow}', errno = 11" in said
    assert f"Failed to open '{backing}', errno = 11" in said
    assert not (tmp_path / "a").exists() or not (tmp_path / "a").stat().st_size
    assert not (tmp_path / "b").exists() or not (tmp_path / "b").stat().st_size
    for unit in () if is_dead else ("c", "d"):
        assert (tmp_path / unit).read_bytes() == backing.read_bytes()[:4096], said


@pytest.mark.parametrize("boots", [1, pytest.param(25, marks=pytest.mark.slow)])
async def test_after_kill_the_kernel_reads_what_we_read(
    kernel_arguments: Arguments, tmp_path: Path, boots: int
) -> None:
    """What we read is right: `tests/cow/test_crash.py` sees to that."""
    for number in range(boots):
        folder = tmp_path / f"boot{number}"
        folder.mkdir()
        await kill_and_compare(kernel_arguments, folder, 1000 + 8 * number)


async def kill_and_compare(arguments: Arguments, tmp_path: Path, seed: int) -> None:
    words, cows = [], []
    for unit in range(8):
        folder = tmp_path / str(unit)
        folder.mkdir()
        cow, _ = pair(folder, SIZE)
        await trio.to_thread.run_sync(kill_while_writing, cow, seed + unit)
        words.append(f"ubd{unit}={cow}")
        cows.append(cow)
    script = busybox("".join(f"cat /dev/ubd{letter(unit)} >/host/{unit}/read\n" for unit in range(8)))
    said = await trio.to_thread.run_sync(lambda: boot(arguments, tmp_path, script, *words))
    for cow in cows:
        assert (cow.parent / "read").read_bytes() == await contents(cow), said


def test_sizes_and_a_switch_by_the_kernel(kernel_arguments: Arguments, tmp_path: Path) -> None:
    """The kernel lets a header of ours name the moved backing file, and we go on with what it wrote."""
    cow, backing = pair(tmp_path, 1 << 20)
    moved = tmp_path / "moved"
    moved.write_bytes(backing.read_bytes())
    mtime = header_at(str(cow)).mtime
    os.utime(moved, (mtime, mtime))
    said = boot(kernel_arguments, tmp_path, busybox("dd if=/dev/ubda of=/dev/null count=1\n"), f"ubd0={cow},{moved}")
    assert f"Switching backing file to '{moved}'" in said
    assert header_at(str(cow)).backing == os.fsencode(moved)
    assert info(str(cow)).valid
