"""Machines whose guests take their time to shut down, or do not do it at all."""

from __future__ import annotations

import json
import shutil

import pytest

from runtime.guest.initramfs import find_busybox
from tests.machines.household import Household

pytestmark = [pytest.mark.guest, pytest.mark.kernels]

SLOW = """\
# An init that hears nothing yet, and then takes long, but says something now and then.
echo systemd >/proc/1/comm
sleep 2
stop() {
    for second in 1 2 3 4 5 6 7; do
        echo "stopping $second" >/dev/kmsg
        sleep 1
    done
    echo o >/proc/sysrq-trigger
}
trap stop 38
while :; do sleep 0.1; done
"""


def test_a_guest_that_takes_its_time(me: Household) -> None:
    """It is asked once, when its init listens, and waited for as long as it makes progress."""
    place = me.home / "init"
    place.mkdir()
    (place / "slow").write_text(SLOW)
    me.ok("boot", "-d", "umid=it", "mem=64M", "--mount", f"/mnt={place}", "init=/bin/sh", "/mnt/slow")
    assert me.ok("halt", "--timeout", "3", "it") == ""
    assert me.ps() == []


def test_a_guest_that_does_not_do_it(me: Household) -> None:
    """The machine ends all the same, and what may be lost is said."""
    me.ok("boot", "-d", "umid=it", "mem=64M", "init=/bin/sleep", "1000")
    status, line = me.error("halt", "--timeout", "1", "it")
    assert status == 1
    assert line.startswith("the guest did not halt within 1 s")
    assert line.endswith(": ended by force; what it had not written is lost")
    assert me.ps() == []


def test_a_root_with_busybox_alone(me: Household) -> None:
    """Its init is told by signals: there need be no program for it."""
    for name in ("bin", "sbin", "dev", "proc", "sys", "run", "tmp", "etc"):
        (me.home / "root" / name).mkdir(parents=True)
    shutil.copyfile(find_busybox(), me.home / "root/bin/busybox")
    (me.home / "root/bin/busybox").chmod(0o755)
    (me.home / "root/sbin/init").symlink_to("../bin/busybox")
    (me.home / "root/etc/inittab").write_text("::respawn:/bin/busybox sleep 1000\n")
    me.ok("boot", "-d", "--wait", "umid=it", "mem=64M", "--root", "root")
    assert me.ok("halt", "it") == ""
    (ended,) = json.loads(me.ok("ps", "-a", "--json"))
    assert (ended["state"], ended["how"]) == ("ended", "")
    me.ok("boot", "-d", "umid=it", "mem=64M", "--root", "root", "init=/bin/busybox", "sleep", "1000")
    status, line = me.error("halt", "it")
    assert (status, line.partition(": ")[0]) == (1, "the guest has no program for it")
    assert line.endswith("ended by force; what it had not written is lost")
