"""ubd devices in a guest, served by us and by the kernel's own driver."""

from __future__ import annotations

import hashlib
import os
import random
import re
import struct
from pathlib import Path

import pytest

from runtime.machine.machine import Machine, Options
from tests import needs
from tests.cli.test_serve import serving
from tests.cow.files import assert_whole_groups, contents
from tests.guest.disks import MIB, Heard, content, empty, guest, shell, specs
from umlfs.cow.check import Severity, check, worst
from umlfs.errors import UmlError
from umlfs.ubd import parse
from umlfs.ubd.device import open_ubd
from umlfs.ubd.native import native_argument

pytestmark = pytest.mark.guest


def digest(data: bytes | bytearray) -> str:
    return hashlib.md5(data).hexdigest()


def partitioned(path: Path) -> Path:
    """An image with an MS-DOS partition table: sectors 2048 to 4095, and 4096 to 12287."""
    content = bytearray(8 * MIB)
    for number, (first, count) in enumerate(((2048, 2048), (4096, 8192))):
        struct.pack_into("<B3sB3sII", content, 446 + 16 * number, 0, b"\0\2\0", 0x83, b"\0\2\0", first, count)
    content[510:512] = b"\x55\xaa"
    content[4096 * 512 : 4096 * 512 + 6] = b"second"
    path.write_bytes(content)
    return path


UDEV = """
rm /dev/ubd*
/lib/systemd/systemd-udevd --daemon
udevadm trigger --subsystem-match=block && udevadm settle
"""


async def test_names_for_init_and_for_udev(tmp_path: Path) -> None:
    needs.program("udevadm")
    disk, image = partitioned(tmp_path / "disk"), empty(tmp_path / "image", MIB)
    look = "for each in /dev/ubd*; do echo $each $(blockdev --getsize64 $each); done\n"
    serials = "for each in /dev/ubd[a-z]; do cat /sys/block/$(readlink $each)/serial; echo; done\n"
    tell = look + "head -c 6 /dev/ubdc2; echo\n" + serials
    said = await guest(tell + UDEV + tell, f"ubd2={disk}", f"ubdp={image},,A serial [of] 20 b")
    expected = ["ubdc 8388608", "ubdc1 1048576", "ubdc2 4194304", "ubdp 1048576"]
    lines = [f"/dev/{line}" for line in expected] + ["second", "ubdc", "A serial [of] 20 b"]
    assert re.sub("Starting .*\n", "", said).splitlines() == lines * 2


async def test_names_with_the_kernel_s_driver(tmp_path: Path) -> None:
    disk = partitioned(tmp_path / "disk")
    said = await guest(
        "ls /dev/ubd*; head -c 6 /dev/ubdc2; cat /sys/block/ubdc/serial", f"ubd2={disk},,SER", native=True
    )
    assert said == "/dev/ubdc\n/dev/ubdc1\n/dev/ubdc2\nsecondSER"


MIRROR = """
[ ! -e /proc/modules ] || modprobe raid1
mdadm --create /dev/md0 --run --metadata=1.2 --bitmap=internal -l1 -n2 /dev/ubda /dev/ubdb >/dev/null 2>&1
mkfs.ext4 -q /dev/md0 && mount /dev/md0 /mnt && echo both >/mnt/file && umount /mnt
mdadm --stop /dev/md0 >/dev/null 2>&1
mount -o ro,offset=$((2048 * 512)) /dev/ubdb /mnt && cat /mnt/file
"""


async def test_disks_of_a_mirror(tmp_path: Path) -> None:
    """The kernel has them write its own page of zeroes, which is in no memory that it shares."""
    needs.program("mdadm")
    disks = [f"ubd{unit}={empty(tmp_path / str(unit), 24 * MIB)}" for unit in range(2)]
    assert await guest(MIRROR, *disks) == "both\n"


async def test_a_disk_of_another_server(tmp_path: Path) -> None:
    """`uml serve virtioblk` serves a guest that somebody else started."""
    image, socket = tmp_path / "image", tmp_path / "socket"
    image.write_bytes(b"served".ljust(MIB, b"\0"))
    with serving("virtioblk", f"raw:{image}", "--socket", str(socket), "--serial", "SER"):
        # A disk of its own has the guest load the driver.
        own = specs(f"ubd0={empty(tmp_path / 'own', MIB)}")
        async with Machine(Options(arguments=[f"virtio_uml.device={socket}:2"], ubds=own)) as machine:
            script = (
                "cat /sys/block/vdb/serial; head -c 6 /dev/vdb; echo written | dd of=/dev/vdb conv=fsync status=none"
            )
            assert await shell(machine, script) == "SERserved"
        assert content(image).startswith(b"written\n")


FLAGS = """
queue() { cat /sys/block/$(readlink /dev/$1)/queue/$2; }
echo r $(cat /sys/block/$(readlink /dev/ubda)/ro)
dd if=/dev/zero of=/dev/ubda count=1 2>/dev/null || echo refused
echo t $(queue ubdb discard_max_bytes) $(queue ubdb write_zeroes_max_bytes)
echo d $(head -c 4 /dev/ubdd)
echo c $(head -c 5 /dev/ubdc)
echo synchronous | dd of=/dev/ubde conv=fsync 2>/dev/null
echo none $(queue ubde discard_max_bytes) $(queue ubde write_cache)
"""


async def test_flags(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(b"image" * 200000)
    cow, other = tmp_path / "cow", empty(tmp_path / "other", MIB)
    await (await open_ubd(parse(f"ubd0={cow},{image}"))).close()
    before = content(image), content(cow)
    words = (
        f"ubd0r={image}",
        f"ubd1t={empty(tmp_path / 't', MIB)}",
        f"ubd2cr={image}",
        f"ubd3d={cow}",
        f"ubd4s={other}",
    )
    said = await guest(FLAGS, *words)
    assert said.splitlines() == ["r 1", "refused", "t 0 0", "d OOOM", "c image", "none 2147483648 write back"]
    assert (content(image), content(cow)) == before
    assert content(other).startswith(b"synchronous\n")


SIZES = """
for unit in a b c; do md5sum </dev/ubd$unit; done
for unit in a b c; do echo -n "written to $unit" | dd of=/dev/ubd$unit bs=512 seek=3 conv=sync,fsync 2>/dev/null; done
"""


async def test_small_and_odd_sizes(tmp_path: Path) -> None:
    """A COW file of 32 KiB, on which the kernel's driver hangs, and ends within a sector, where it repeats data."""
    chance = random.Random(1)
    small, odd, raw = (tmp_path / name for name in ("small", "odd", "raw"))
    for path, size in ((small, 32 << 10), (odd, 82020), (raw, 10001)):
        path.write_bytes(chance.randbytes(size))
    originals = [content(path) for path in (small, odd, raw)]
    said = await guest(SIZES, f"ubd0={small}.cow,{small}", f"ubd1={odd}.cow,{odd}", f"ubd2={raw}")
    padded = [each + bytes(-len(each) % 512) for each in originals]
    assert said.splitlines() == [f"{digest(each)}  -" for each in padded]
    found = [await contents(tmp_path / "small.cow"), await contents(tmp_path / "odd.cow"), content(raw)]
    for unit, (before, after) in enumerate(zip(originals, found, strict=True)):
        assert after == before[:1536] + f"written to {'abc'[unit]}".encode().ljust(512, b"\0") + before[2048:]
    assert_whole_groups(tmp_path / "odd.cow")


@pytest.mark.kernels
async def test_both_drivers_read_what_the_other_wrote(tmp_path: Path) -> None:
    """Random pieces through one driver, then through the other; each reads all, and so do we."""
    chance = random.Random(4)
    backing, cow = tmp_path / "backing", tmp_path / "cow"
    backing.write_bytes(chance.randbytes(4 * MIB))
    data = tmp_path / "data"
    data.write_bytes(chance.randbytes(MIB))
    expected = bytearray(content(backing))
    await (await open_ubd(parse(f"ubd0={cow},{backing}"))).close()
    for native, unit in ((False, 512), (True, 4096), (False, 4096)):
        writes = ""
        for _ in range(6):
            count = chance.choice((1, 2, 7, 40))
            to, source = chance.randrange(4 * MIB // unit - count), chance.randrange(MIB // unit - count)
            writes += f"dd if={data} of=/dev/ubda bs={unit} count={count} seek={to} skip={source} oflag=direct 2>&1\n"
            expected[to * unit : (to + count) * unit] = content(data)[source * unit : (source + count) * unit]
        sums = "echo 3 >/proc/sys/vm/drop_caches; md5sum </dev/ubda; dd if=/dev/ubda bs=4k 2>/dev/null | md5sum\n"
        said = await guest(writes + sums, f"ubd0={cow}", native=native)
        assert said.splitlines()[-2:] == [f"{digest(expected)}  -"] * 2, said
        assert await contents(cow) == expected
        assert worst(check(str(cow))) is not Severity.ERROR
        assert_whole_groups(cow)


async def test_locks_hold_between_both_drivers(tmp_path: Path) -> None:
    image = empty(tmp_path / "image", MIB)
    cow, backing = tmp_path / "cow", empty(tmp_path / "backing", MIB)
    async with Machine(Options(ubds=specs(f"ubd0={image}", f"ubd1={cow},{backing}"), native_ubd=True)) as machine:
        said = Heard()
        script = "exec 3<>/dev/ubda 4<>/dev/ubdb; echo held; exec sleep 1000"
        job = machine.start(["/bin/sh", "-c", script], stdout=said)
        await said.line(b"held")
        for path in (image, cow, backing):
            with pytest.raises(UmlError, match=r"in use by .* \(pid \d+\)"):
                await open_ubd(parse(f"ubd0={path}"))
        job.signal("KILL")
        await job.wait()
    async with Machine(Options(ubds=specs(f"ubd0={image}", f"ubd1={cow}"))):
        for word in (f"ubd0={image}", f"ubd0={cow}", f"ubd0={backing}"):
            with pytest.raises(UmlError, match=f"in use by this process .pid {os.getpid()}"):
                await native_argument(parse(word))
        assert await native_argument(parse(f"ubd0r={backing}"))
