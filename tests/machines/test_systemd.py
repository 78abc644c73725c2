"""A Debian with systemd boots to a login prompt from every kind of root, keeps what it wrote, and halts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.machines.household import Household, household
from tests.machines.systems import make_archive, make_image, unpack

pytestmark = pytest.mark.guest


NETWORK = """
until grep -q ADMIN_STATE=configured /run/systemd/netif/links/*; do sleep 0.1; done
/run/umlfs/busybox ip -o -4 addr show eth0 | grep -o '[0-9.]*/[0-9]*'
/run/umlfs/busybox ip route show | sed -n 's/^default via \\([0-9.]*\\) .*/\\1/p'
cat /etc/resolv.conf
"""
"""The system's networkd, which has a file of its own that says DHCP, has seen to the card: and left it as it was."""


@dataclass
class System:
    """The system, in all its forms."""

    me: Household
    archive: Path
    tree: Path
    image: Path


@pytest.fixture(scope="module")
def system() -> Iterator[System]:
    """Made once: it takes some seconds."""
    with household() as me:
        archive = make_archive(me.home)
        tree = unpack(archive, me.home)
        yield System(me, archive, tree, make_image(tree, me.home / "image"))


def boots(me: Household, *words: str | Path, also: Callable[[Household], None] = lambda me: None) -> None:
    """Boot to the login prompt, look around, write something, and halt; it must be there at the next boot."""
    assert me.ok("boot", "-d", "--wait", "umid=it", *words) == "it\n"
    assert me.ok("exec", "it", "systemctl", "is-system-running") == "running\n"
    me.lines("it", "con1", "guest login: ")
    assert me.ok("exec", "it", "--", "sh", "-c", "cat /proc/1/comm; mkdir /kept; sync") == "systemd\n"
    assert me.ok("exec", "it", "systemctl", "is-active", "multi-user.target", "getty@tty1.service")
    assert me.ok("exec", "it", "--", "sh", "-c", NETWORK) == "10.0.2.100/24\n10.0.2.2\nnameserver 10.0.2.3\n"
    also(me)
    me.ok("halt", "it")
    assert me.ps() == []


def plugs(me: Household) -> None:
    """The guest's udev knows the disk of the boot by its name, and another as long as it is there."""
    each = "udevadm settle; for each in /sys/block/vd?; do udevadm info -q symlink $each; done"
    links = f"{each} | tr ' ' '\\n' | grep -x ubd."
    assert me.ok("exec", "it", "sh", "-c", links) == "ubda\n"
    me.ok("mconsole", "it", f"config ubd2r={me.home}/image")
    assert me.ok("exec", "it", "sh", "-c", links) == "ubda\nubdc\n"
    me.ok("mconsole", "it", "remove ubd2")
    assert me.ok("exec", "it", "sh", "-c", links) == "ubda\n"


def keeps(me: Household, *words: str | Path) -> None:
    """What was written is there at the next boot."""
    me.ok("boot", "-d", "umid=it", "init=/bin/sleep", "1000", *words)
    me.ok("exec", "it", "--", "test", "-d", "/kept")
    me.ok("halt", "--now", "it")


def test_cow_over_ext4(system: System) -> None:
    disk = f"ubd0={system.me.home}/ours.cow,{system.image}"
    boots(system.me, disk, "root=/dev/ubda", also=plugs)
    keeps(system.me, disk, "root=98:0")


def test_humfs(system: System) -> None:
    tree = system.me.home / "humfs"
    system.me.ok("humfs", "create", tree, "--size", "2G")
    system.me.ok("humfs", "import", tree, system.archive)
    boots(system.me, "--root", f"humfs:{tree}")


@pytest.mark.slow
def test_hostfs(system: System) -> None:
    boots(system.me, "--root", f"hostfs:{system.tree}")
    assert (system.tree / "kept").is_dir()


@pytest.mark.slow
def test_the_kernel_s_own_ubd(system: System) -> None:
    boots(system.me, f"ubd0={system.me.home}/native.cow,{system.image}", "root=/dev/ubda", "--ubd-driver", "native")
