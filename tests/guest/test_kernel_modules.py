"""A throwaway guest finds the modules of its kernel, and the kernel loads them by itself."""

from __future__ import annotations

import pytest

from tests.guest.caller import Caller

pytestmark = pytest.mark.guest

SCRIPT = """\
set -e
truncate -s 10M /tmp/image
mke2fs -qF /tmp/image
mount -o loop /tmp/image /mnt
stat -f -c %T /mnt
! touch /lib/modules/$(uname -r)/new 2>/dev/null
grep -c . /lib/modules/$(uname -r)/modules.dep
"""


def test_a_loop_device(caller: Caller) -> None:
    caller.variables["PATH"] = "/usr/sbin:/usr/bin:/sbin:/bin"
    kind, count = caller.output("--", "sh", "-c", SCRIPT).split()
    assert kind == "ext2/ext3"
    assert int(count) > 10
