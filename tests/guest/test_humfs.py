"""A guest whose root is a humfs that an ordinary user filled: owners are true in it, and plain files outside."""

from __future__ import annotations

import os
import shutil
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guest import ownership
from tests.guest.caller import Caller, caller_as
from tests.humfs import debian
from tests.ordinary import OrdinaryUser

pytestmark = pytest.mark.guest

SIZE = 64 << 20
PATIENCE = 200.0
"""Seconds that no command here needs: a Debian root goes in and out, and apt runs."""
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
    done = caller.finish(caller.command(*words), PATIENCE)
    assert (done.returncode, done.stderr) == (0, b"")
    return str(done.stdout.decode())


def contents(archive: Path) -> dict[str, tuple[object, ...]]:
    """What an archive says of each file, but its contents."""
    with tarfile.open(archive) as tar:
        return {
            os.path.normpath(one.name): (one.mode, one.uid, one.gid, int(one.mtime), one.type, one.size, one.linkname)
            for one in tar
        }


@pytest.fixture
def caller(user: OrdinaryUser) -> Iterator[Caller]:
    """An ordinary user: for root it is no art."""
    with caller_as(user if os.geteuid() == 0 else None) as somebody:
        yield somebody


def test_what_ownership_promises(caller: Caller) -> None:
    root = caller.directory / "owned"
    uml(caller, "humfs", "create", root, "--size", str(SIZE), "--acl")
    shutil.copy(ownership.__file__, caller.directory / "script")
    mounts = ("--mount", f"/mnt=humfs:{root}", "--mount", f"/srv=hostfs:{caller.directory}:ro")
    said = uml(caller, "run", *mounts, "--", caller.python, "/srv/script", "/mnt", str(SIZE))
    assert said.splitlines() == [f"holds: {claim.__name__}" for claim in ownership.CLAIMS]
    assert uml(caller, "humfs", "check", root) == ""


def test_debian_with_true_owners(caller: Caller, tmp_path: Path) -> None:
    debian.pack(caller.directory / "debian.tar")
    root = caller.directory / "root"
    uml(caller, "humfs", "create", root, "--size", "2G")
    uml(caller, "humfs", "import", root, caller.directory / "debian.tar")
    package = debian.build_package(tmp_path)
    shutil.copy(package, caller.directory / "probe.deb")
    caller.own(caller.directory / "probe.deb")
    mount = f"/mnt=hostfs:{caller.directory}:ro"

    def guest(script: str) -> str:
        return uml(caller, "run", "--rw", "--root", f"humfs:{root}", "--mount", mount, "--", "sh", "-ec", PATH + script)

    guest("su -s /bin/sh nobody -c 'touch /tmp/x'; apt-get install -y /mnt/probe.deb >/tmp/log 2>&1 || cat /tmp/log")
    assert guest(FACTS) == EXPECTED
    assert uml(caller, "humfs", "check", root) == ""
    for path in (root, *root.rglob("*")):
        found = path.lstat()
        assert found.st_uid == (caller.user.uid if caller.user else os.geteuid())
        assert stat.S_ISLNK(found.st_mode) or not found.st_mode & 0o7000
    out_and_in_again(caller, root)


def out_and_in_again(caller: Caller, root: Path) -> None:
    first, second, again = (caller.directory / name for name in ("first.tar", "second.tar", "again"))
    uml(caller, "humfs", "export", root, first)
    uml(caller, "humfs", "create", again, "--size", "2G")
    uml(caller, "humfs", "import", again, first)
    uml(caller, "humfs", "export", again, second)
    exported = contents(first)
    assert contents(second) == exported
    for name, said in contents(caller.directory / "debian.tar").items():
        if "/bin/" in name:  # which nobody has changed; of two names of a file, the other may come first
            assert exported[name][:4] == said[:4]
