"""A throwaway guest finds the modules of its kernel, and the kernel loads them by itself."""

from __future__ import annotations

import pytest

from runtime.kernels.features import features
from runtime.kernels.kernel import find_kernel
from tests.guest.caller import Caller

pytestmark = pytest.mark.guest

SCRIPT = """\
set -e
truncate -s 10M /tmp/image
mke2fs -qF /tmp/image
mount -o loop /tmp/image /mnt
stat -f -c %T /mnt
"""
MODULES = """\
! touch /lib/modules/$(uname -r)/new 2>/dev/null
grep -c . /lib/modules/$(uname -r)/modules.dep
"""


@pytest.mark.kernels
def test_a_loop_device(caller: Caller) -> None:
    caller.variables["PATH"] = "/usr/sbin:/usr/bin:/sbin:/bin"
    has_modules = find_kernel().modules is not None  # else all is built in
    kind, *count = caller.output("--", "sh", "-c", SCRIPT + MODULES * has_modules).split()
    assert kind == "ext2/ext3"
    assert [int(each) > 10 for each in count] == [True] * has_modules


RAID = """\
PATH=/usr/sbin:/usr/bin:/sbin:/bin
modprobe raid456 2>/dev/null && echo loaded
grep -c btrfs /proc/filesystems || true
"""


@pytest.mark.kernels
def test_raid(caller: Caller) -> None:
    """What needs the routines of RAID-6 is there with them, and not without: it would stop the kernel."""
    if not features(find_kernel()).has_option("CONFIG_RAID6_PQ_BENCHMARK"):
        assert caller.output("--", "grep", "-c", "btrfs", "/proc/filesystems") == "1\n"
        return
    assert caller.output("--", "sh", "-c", RAID) == "0\n"
    (caller.directory / "disk").write_bytes(bytes(1 << 20))
    assert caller.output("--ubd", f"ubd0r={caller.directory}/disk", "--", "sh", "-c", RAID) == "loaded\n1\n"
