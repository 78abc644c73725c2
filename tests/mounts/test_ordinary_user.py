"""Mounting without root, through fusermount3.

Where /dev/fuse is root's alone, root's tests put a device of their own there, in a mount namespace of their own:
nothing on the machine changes.
"""

from __future__ import annotations

import os
import shlex
import stat
import subprocess
from pathlib import Path

import pytest

from tests import needs
from tests.contract.filesystem import CHECKS
from tests.hostfs.features import features_of
from tests.ordinary import OrdinaryUser, copied_checks

_FUSE = os.makedev(10, 229)


def run(user: OrdinaryUser, script: str, tmp_path: Path) -> str:
    """What `script` prints, run by `user` with `uml` as a function."""
    needs.program("fusermount3")
    uml = shlex.join(user.uml())
    text = f'uml() {{ {uml} "$@"; }}\n{script}'
    command = ["sh", "-ec", text]
    if os.geteuid() == 0:
        node = tmp_path / "fuse"
        os.mknod(node, stat.S_IFCHR | 0o666, _FUSE)
        os.chmod(node, 0o666)
        prefix = f"mount --bind {node} /dev/fuse && exec "
        command = [*needs.mount_namespace(), "sh", "-c", prefix + shlex.join(command)]
    else:
        needs.path("/dev/fuse", "chmod 666 /dev/fuse, or run the tests as root")
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture
def home(user: OrdinaryUser) -> Path:
    """The user's home, with something to mount in it."""
    source, mountpoint = user.home / "source", user.home / "mounted"
    for directory in (source, mountpoint):
        directory.mkdir(exist_ok=True)
        os.chown(directory, user.uid, user.gid)
    (source / "file").write_text("content")
    return user.home


def as_user(user: OrdinaryUser, script: str) -> str:
    """A line of shell that runs `script` as the user."""
    return shlex.join(user.command("sh", "-ec", script))


def test_a_mount(user: OrdinaryUser, home: Path, tmp_path: Path) -> None:
    work = "cat mounted/file; echo new > mounted/new; ls mounted; stat -c %u mounted/new; cat source/new"
    said = run(
        user,
        f"""
        uml mount source mounted
        {as_user(user, work)}
        uml mount --json | grep -c '"requests": [1-9]'
        uml umount mounted
        {as_user(user, "ls mounted")}
        """,
        tmp_path,
    )
    assert said.split() == ["contentfile", "new", str(user.uid), "new", "1"]


def test_a_dead_mount(user: OrdinaryUser, home: Path, tmp_path: Path) -> None:
    kill = """kill -9 $(uml mount --json | sed -n 's/.*"pid": \\([0-9]*\\).*/\\1/p'); sleep 0.2"""
    said = run(
        user,
        f"""
        uml mount source mounted; {kill}
        uml mount source mounted; {as_user(user, "cat mounted/file")}; {kill}
        uml mount
        {as_user(user, "ls mounted")}
        """,
        tmp_path,
    )
    assert said == "content"


def test_what_is_refused(user: OrdinaryUser, home: Path, tmp_path: Path) -> None:
    said = run(user, "uml mount source / || true; uml mount source mounted -o allow_root,colour=blue || true", tmp_path)
    lines = said.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("uml: /: cannot be mounted: ")
    assert "unknown option 'colour'" in lines[1]


HIDDEN = {
    "mknod -m 600 {place}/none c 10 229 && mount --bind {place}/none /dev/fuse": "'chmod 666 /dev/fuse'",
    "mount -t tmpfs none /dev": "'modprobe fuse'",
    "mount --bind /dev/null {helper}": "'apt-get install fuse3'",
    "cp {helper} {place}/helper && chmod 755 {place}/helper && mount --bind {place}/helper {helper}": "chmod u+s",
}
"""What a host may lack, and what then is to be done."""


@pytest.mark.parametrize("hide", HIDDEN)
@pytest.mark.real_root
def test_what_the_host_lacks(hide: str, user: OrdinaryUser, home: Path, tmp_path: Path) -> None:
    """The error says what to do."""
    hidden = hide.format(place=tmp_path, helper=needs.program("fusermount3"))
    command = f"{hidden} && {shlex.join(user.uml('mount', 'source', 'mounted'))}"
    done = subprocess.run(
        [*needs.mount_namespace(), "sh", "-c", command],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert HIDDEN[hide] in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.real_root
def test_a_helper_that_went(user: OrdinaryUser, home: Path, tmp_path: Path) -> None:
    """What is mounted then cannot be unmounted, alive or dead, and either is said in a line."""
    uml = shlex.join(user.uml())
    script = f"""
        {uml} mount --foreground source mounted 2>&- & server=$!
        until grep -q {user.home}/mounted /proc/mounts; do kill -0 $server || exit; sleep 0.01; done
        mount --bind /dev/null {needs.program("fusermount3")}
        {uml} umount mounted
        kill -9 $server; wait $server 2>&-
        {uml} mount
        umount -l {user.home}/mounted"""
    done = subprocess.run(
        [*needs.mount_namespace(), "sh", "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=60,
    )
    alive, _, dead = done.stdout.splitlines()
    assert "'apt-get install fuse3' as root" in alive
    assert "dead: " in dead
    assert "'apt-get install fuse3' as root" in dead


@pytest.mark.parametrize("source", ["source", pytest.param("tree", marks=pytest.mark.slow)])
def test_the_contract(source: str, user: OrdinaryUser, home: Path, tmp_path: Path) -> None:
    """Every check of `Filesystem`, by POSIX calls through a mount of a hostfs and of a humfs of theirs."""
    checks = copied_checks(user.home / "checks")
    features = features_of(home / "source")
    words = ["owners=False", "devices=False", f"xattrs={features.xattrs!r}", f"zero_range={features.zero_range}"]
    words += [f"holes={source == 'source'}"]
    words += [f"uid={user.uid}", f"gid={user.gid}"]
    path = ":".join(map(str, (checks, *user.path)))
    check = user.command(f"PYTHONPATH={path}", user.python, "-m", "tests.contract.posix", "mounted", *words)
    make = f"uml humfs create tree --size 1T --owner {user.uid}:{user.gid}; " if source == "tree" else ""
    said = run(user, f"{make}uml mount {source} mounted; {shlex.join(check)} || true; uml umount mounted", tmp_path)
    assert said == f"{len(CHECKS)} of {len(CHECKS)} hold\n"
