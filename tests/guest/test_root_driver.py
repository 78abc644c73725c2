"""A private root by the kernel's own hostfs: the same contents as by ours, and no way out of the tree."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from runtime.guest.initramfs import find_busybox
from runtime.jail.grants import Grants
from runtime.machine import kernel_hostfs
from tests.guest.caller import Caller
from umlfs.errors import UsageError
from umlfs.sources import as_source

LOOK = """\
cd / && find bin data etc | sort | while read -r name; do
    stat -c '%n %f %u %g %s %h %Y' "$name"
    [ ! -h "$name" ] || readlink "$name"
    [ ! -f "$name" ] || md5sum "$name"
done
"""
ATTACK = """\
mkdir /host && mount -t hostfs none /host -o / || exit 9
for name in "$1/../secret" var proc/1 etc/shadow; do
    [ ! -e "/host/$name" ] || { echo "$name is in reach"; exit 8; }
done
[ "$(cat "/host$1/etc/passwd")" = "$(cat /etc/passwd)" ] || exit 7
{ true >"/host$1/new" || echo x >>"/host$1/etc/passwd" || chmod 777 "/host$1/etc"; } 2>/dev/null && exit 6
echo mine >/etc/passwd && rm /data/0 && cat /etc/passwd
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A userland that is nothing but busybox, and some files."""
    place = tmp_path / "a root"
    (tmp_path / "secret").touch()
    for name in ("bin", "data", "dev", "etc", "proc", "run", "sys", "tmp"):
        (place / name).mkdir(parents=True)
    shutil.copy(find_busybox(), place / "bin/busybox")
    for name in ("cat", "chmod", "find", "md5sum", "mkdir", "mount", "readlink", "rm", "sh", "sort", "stat"):
        (place / "bin" / name).symlink_to("busybox")
    (place / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\n")
    for number in range(50):
        (place / "data" / str(number)).write_bytes(b"%d " % number * number * 50)
    (place / "data/0").chmod(0o4755)
    os.link(place / "data/1", place / "data/linked")
    (place / "data/gone").symlink_to("../nowhere")
    return place


@pytest.mark.guest
@pytest.mark.kernels
def test_same_contents_and_no_way_out(me: Caller, tree: Path) -> None:
    hostfs = ("--root", tree, "--root-driver", "hostfs")
    before = {path: path.lstat() for path in tree.rglob("*")}
    ours, theirs = (me.output(*words, "--", "sh", "-c", LOOK) for words in (("--root", tree), hostfs))
    assert ours == theirs
    assert ours.count("\n") > 140
    assert me.output(*hostfs, "--", "sh", "-c", ATTACK, "sh", tree.resolve()) == "mine\n"
    after = {path: path.lstat() for path in tree.rglob("*")}
    assert {path: found[:7] + found[8:] for path, found in after.items()} == {
        path: found[:7] + found[8:] for path, found in before.items()
    }  # but for the time of access


def refusal(word: str, *, writable: bool = False, jailed: bool = True) -> str:
    with pytest.raises(UsageError) as found:
        kernel_hostfs.root(as_source(word), Grants(), writable=writable, jailed=jailed)
    return str(found.value)


def test_what_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "a,b").mkdir()
    assert "every Unix socket of the host" in refusal("hostfs:/")
    assert "keeps no owners" in refusal(str(tmp_path), writable=True)
    assert "no directory of this host" in refusal("sql:file.db")
    assert "no commas" in refusal(str(tmp_path / "a,b"), jailed=False)
    assert "not a directory" in refusal("hostfs:/etc/passwd", jailed=False)


def test_what_is_granted(tmp_path: Path) -> None:
    grants = Grants()
    mount = kernel_hostfs.root(as_source(str(tmp_path)), grants, writable=False, jailed=True)
    assert (mount.kind, mount.options) == ("hostfs", f"ro,{tmp_path}")
    assert (grants.read, grants.write, grants.hostfs, bool(grants.keep_user)) == ([tmp_path], [], True, True)
    open_to_all = Grants()
    assert kernel_hostfs.root(as_source("hostfs:/"), open_to_all, writable=False, jailed=False).options == "ro,/"
    assert open_to_all == Grants()
