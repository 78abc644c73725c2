"""A guest whose root is a humfs that an ordinary user filled: owners are true in it, and plain files outside."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guest.caller import BOUND, Caller, caller_as
from tests.humfs import debian
from tests.ordinary import OrdinaryUser

pytestmark = pytest.mark.guest

PATH = "export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin; "
FACTS = """\
stat -c '%n %a %u %g' /etc/shadow /usr/bin/su /tmp /tmp/x /usr/local/bin/suid-id /var/lib/probe
stat -c '%n %F %t,%T' /var/lib/probe/zero
su -s /bin/sh nobody -c '/usr/local/bin/suid-id -u'
dpkg-query -W -f '${Package} ${Status}\\n' umlfs-probe
head -c 3 /var/lib/probe/zero | od -An -tx1
"""
EXPECTED = """\
/etc/shadow 640 0 42
/usr/bin/su 4755 0 0
/tmp 1777 0 0
/tmp/x 644 65534 65534
/usr/local/bin/suid-id 4755 4321 42
/var/lib/probe 755 1234 65534
/var/lib/probe/zero character special file 1,5
4321
umlfs-probe install ok installed
 00 00 00
"""


def uml(caller: Caller, *words: str | Path) -> str:
    done = subprocess.run(caller.command(*words), capture_output=True, text=True, timeout=BOUND, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.fixture
def caller(user: OrdinaryUser) -> Iterator[Caller]:
    """An ordinary user: for root it is no art."""
    with caller_as(user if os.geteuid() == 0 else None) as somebody:
        yield somebody


def test_debian_with_true_owners(caller: Caller, tmp_path: Path) -> None:
    debian.pack(caller.directory / "debian.tar")
    root = caller.directory / "root"
    uml(caller, "humfs", "create", root, "--size", "2G")
    uml(caller, "humfs", "import", root, caller.directory / "debian.tar")
    package = debian.build_package(tmp_path)
    shutil.copy(package, caller.directory / "probe.deb")
    caller.own(caller.directory / "probe.deb")
    guest = ("--rw", "--root", f"humfs:{root}", "--mount", f"/mnt=hostfs:{caller.directory}:ro", "--", "sh", "-ec")
    caller.output(*guest, PATH + "su -s /bin/sh nobody -c 'touch /tmp/x'")
    caller.run(*guest, PATH + "apt-get install -y /mnt/probe.deb >&2")
    assert caller.output(*guest, PATH + FACTS) == EXPECTED
    assert uml(caller, "humfs", "check", root) == ""
    assert caller.output(*guest, PATH + FACTS) == EXPECTED
    for path in (root, *root.rglob("*")):
        found = path.lstat()
        assert found.st_uid == (caller.user.uid if caller.user else os.geteuid())
        assert stat.S_ISLNK(found.st_mode) or not found.st_mode & 0o7000
