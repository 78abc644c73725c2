"""What a command finds in its guest: arguments, environment, user, directory, devices, network, time."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from tests.guest.caller import Caller

pytestmark = pytest.mark.guest

ODD = [
    "",
    " a  b ",
    "new\nline",
    "quo'te\"",
    "$HOME `id` $(id)",
    "*",
    "-x",
    "--",
    "\\",
    "\udcff\udcfe",
    "é漢",
    "#!",
    "~",
]

AROUND = """
set -e
[ "$(cat /dev/fd/0)" = hello ]
[ "$(echo out >/dev/stdout)" = out ]
[ "$(echo err 2>&1 >/dev/stderr)" = err ]
[ -c /dev/ptmx ]
[ "$(cat /sys/class/net/lo/operstate)" != down ]
echo "$(cat /proc/sys/kernel/hostname) $(date +%s) $(id -u) $(ulimit -Hn) $PWD"
printf 'temporary ' >/tmp/umlfs-written
cat /tmp/umlfs-written
echo changed >/etc/hostname
mkdir /new-at-the-top
cat /etc/hostname
env | cut -d= -f1 | sort | tr '\\n' ' '
"""


@pytest.mark.kernels
def test_surroundings(caller: Caller) -> None:
    before = time.time()
    lines = caller.output("--", "sh", "-c", AROUND, input=b"hello").splitlines()
    host, at, uid, files, directory = lines[0].split()
    assert before - 5 < int(at) < time.time() + 5
    assert (host, uid, files, directory) == ("umlfs", "0", "524288", str(caller.directory))
    assert lines[1] == "temporary changed"
    assert not {"mem", "uml_dir", "umid", "initrd", "TERM", "control", "number", "user"} & set(lines[2].split())
    assert {"HOME", "LANG", "LOGNAME", "PATH", "PWD", "SHELL", "USER"} <= set(lines[2].split())
    assert not Path("/new-at-the-top").exists()
    assert not Path("/tmp/umlfs-written").exists()


@pytest.mark.kernels
def test_odd_arguments(me: Caller) -> None:
    assert me.output("--", "printf", "[%s]\n", *ODD) == "".join(f"[{word}]\n" for word in ODD)


def test_first_word_is_as_it_was_called(me: Caller) -> None:
    script = me.directory / "script with space"
    script.write_text('#!/bin/sh\nprintf "[%s]\\n" "$@"\n')
    script.chmod(0o755)
    assert me.output("--", "./script with space", "a b") == "[a b]\n"
    assert me.output("--", "sh", "-c", "echo $0") == "sh\n"


@pytest.mark.parametrize(
    ("command", "status", "complaint"),
    [
        ("no-such-command", 127, "no-such-command: no such command in the guest's root"),
        ("/nowhere", 127, "/nowhere: no such file in the guest's root"),
        ("/etc/passwd", 126, "/etc/passwd: not an executable file in the guest's root"),
        ("/etc", 126, "/etc: not an executable file in the guest's root"),
    ],
)
def test_no_such_command(me: Caller, command: str, status: int, complaint: str) -> None:
    assert me.error("--", command) == (status, complaint)


@pytest.mark.kernels
def test_exit_status(caller: Caller) -> None:
    for script, status in (("exit 7", 7), ("kill -9 $$", 137), ("kill -TERM $$", 143), ("exit 255", 255)):
        done = caller.run("--", "sh", "-c", script)
        assert (done.returncode, done.stdout, done.stderr) == (status, b"", b"")


def test_environment(me: Caller) -> None:
    me.variables.update(PASSED="on", HIDDEN="secret")
    names = ["user=bob", "name=n", "path=p", "control=c", "number=7", "IFS=x", "HOME=/x y", "EMPTY=", "LINES=a\nb"]
    options = [word for name in [*names, "PASSED", "MISSING"] for word in ("--env", name)]
    found = me.output(*options, "--", "env", "-0").split("\0")
    assert {*names, "PASSED=on"} <= set(found)
    assert not any(word.startswith(("HIDDEN=", "MISSING=")) for word in found)


@pytest.mark.parametrize("word", ["1X=3", "=3", "A B=1", ""])
def test_wrong_environment(me: Caller, word: str) -> None:
    status, line = me.error("--env", word, "--", "true")
    assert status == 2
    assert "is not the name of a variable" in line


def test_directory(me: Caller) -> None:
    assert me.output("--pwd", "/usr/lib", "--", "pwd") == "/usr/lib\n"
    assert me.error("--pwd", "/nowhere", "--", "pwd") == (125, "/nowhere: no such directory in the guest")
    assert me.error("--pwd", "usr", "--", "pwd")[0] == 2
    gone = me.make("gone")
    shell = 'cd "$1" && shift && rmdir "$PWD" && exec "$@"'
    command = [word for word in me.command("run", "--", "pwd") if word not in ("-C", str(me.directory))]
    done = subprocess.run(["sh", "-c", shell, "sh", gone, *command], capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"/\n", b"")


WHO = 'id -un; id -G | wc -w; echo "$HOME $SHELL $USER"; printf "[%s]" "$@"; : >/tmp/mine && stat -c %U /tmp/mine'


@pytest.mark.parametrize("name", ["daemon", "1"])
def test_user(caller: Caller, name: str) -> None:
    words = ["--help", "-c", "-", "x y"]
    lines = caller.output("--user", name, "--", "sh", "-c", WHO, "sh", *words).splitlines()
    assert lines[:3] == ["daemon", "1", "/usr/sbin /usr/sbin/nologin daemon"]
    assert lines[3] == "[--help][-c][-][x y]daemon"


@pytest.mark.kernels
def test_groups_of_a_user(me: Caller) -> None:
    """Groups as the guest's root has them."""
    root = tree(
        me, passwd="root:x:0:0::/:/bin/sh\nann:x:7:8::/home:/bin/sh\n", group="a:x:8:\nb:x:9:ann\nc:x:10:ann,x\n"
    )
    assert me.output("--root", root, "--user", "ann", "--", "id").split()[2].startswith("groups=8(a),9(b),10(c)")
    assert me.output("--root", root, "--user", "ann", "--", "/bin/sh", "-c", "echo x >/dev/stdout") == "x\n"


def test_unknown_users(me: Caller) -> None:
    assert me.error("--user", "no-such", "--", "id") == (125, "no-such: no such user in the guest")
    assert me.output("--user", "123456", "--", "id", "-u") == "123456\n"
    assert me.error("--user", "", "--", "id")[0] == 125


def test_a_shell_reads_what_it_is_given(caller: Caller) -> None:
    assert caller.output(input=b"echo $((6 * 7))\nexit\n") == "42\n"
    assert caller.output("--user", "daemon", input=b"id -un\n") == "daemon\n"


def tree(caller: Caller, passwd: str | None = None, group: str = "") -> Path:
    """A root of nothing but busybox."""
    files = {"etc/hostname": "tree\n"}
    if passwd is not None:
        files |= {"etc/passwd": passwd, "etc/group": group}
    top = caller.make("tree", files)
    (top / "bin").mkdir()
    (top / "bin/busybox").write_bytes(Path("/bin/busybox").read_bytes())
    (top / "bin/busybox").chmod(0o755)
    for name in ("sh", "ls", "id", "cat"):
        os.symlink("busybox", top / "bin" / name)
    caller.own(top)
    return top


@pytest.mark.kernels
def test_a_bare_root(caller: Caller) -> None:
    """Without a password file and without any of the usual directories."""
    root = tree(caller)
    before = sorted(root.rglob("*"))
    script = "echo $(id -u) $HOME; echo x >/tmp/x; ls /"
    assert caller.output("--root", root, "--", "sh", "-c", script).split() == (
        ["0", "/", "bin", "dev", "etc", "proc", "run", "sys", "tmp"]
    )
    assert caller.output("--root", "tree", "--user", "root", input=b"echo $0\n") == "/bin/sh\n"
    os.symlink("tree", caller.directory / "link")
    assert caller.output("--root", "./link", "--", "cat", "/etc/hostname") == "tree\n"
    assert caller.error("--root", root, "--", "true") == (127, "true: no such command in the guest's root")
    assert sorted(root.rglob("*")) == before


def test_an_empty_root(me: Caller) -> None:
    root = me.make("empty")
    assert me.error("--root", root) == (127, "no shell in the guest's root")
    assert me.error("--root", root, "--", "ls") == (127, "ls: no such command in the guest's root")


@pytest.mark.kernels
def test_writing_through(caller: Caller) -> None:
    root = tree(caller)
    missing = "no such directory in the root, whose changes go through; make it first, or leave out --rw"
    assert caller.error("--rw", "--root", root, "--", "ls") == (2, f"/dev: {missing}")
    for name in ("proc", "sys", "dev", "run", "tmp"):
        (root / name).mkdir()
    caller.own(root)
    assert caller.output("--rw", "--root", root, "--", "sh", "-c", "echo through >/tmp/new; echo >>/etc/hostname") == ""
    assert (root / "tmp/new").read_text() == "through\n"
    assert (root / "etc/hostname").read_text() == "tree\n\n"
    owner = (root / "tmp/new").stat().st_uid
    assert owner == (caller.user.uid if caller.user else os.geteuid())
    error = caller.error("--rw", "--root", root, "--mount", "/nowhere=.", "--", "ls")
    assert error == (2, f"/nowhere: {missing}")
    assert not (root / "nowhere").exists()
