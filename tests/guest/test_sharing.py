"""One file, two machines: what a program in a guest holds on to while the host works on the same directory."""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from tests import needs
from tests.guest.caller import BOUND, Caller, eventually

pytestmark = pytest.mark.guest

HOLDER = r"""
exec 3>>/g/log 4</g/replaced 5<>/g/removed
cp /bin/sleep /g/program && chmod +x /g/program && /g/program 1000 &
cd /g/directory
until [ "$(cat /proc/$!/comm)" = program ]; do sleep 0.1; done
echo ready
read -r _
echo line >&3
cat <&4
echo more >&5; chmod 600 /proc/self/fd/5; stat -L -c %s:%a /proc/self/fd/5
echo here >file || exit 1
kill -0 $! && kill $! && wait $!; echo $?
"""


def test_what_is_held_stays(me: Caller) -> None:
    """A rotated log, a file that is replaced, one that is removed, a running program, a current directory."""
    host = me.make("host", {"log": "", "replaced": "old\n", "removed": "content\n", "directory/other": ""})
    with me.started("--mount", f"/g={host}", "--", "sh", "-c", HOLDER) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        (host / "log").rename(host / "log.1")
        (host / "log").touch()
        for name in ("replaced", "program"):
            (host / "new").write_text("new\n" * 4096)
            (host / "new").rename(host / name)
        (host / "removed").unlink()
        (host / "directory").rename(host / "moved")
        output, _ = process.communicate(b"\n", timeout=BOUND)
    assert output.decode().split() == ["old", "8:600", "143"]
    assert ((host / "log.1").read_text(), (host / "log").read_text()) == ("line\n", "")
    assert (host / "moved" / "file").read_text() == "here\n"


LOCKER = r"""
import fcntl, os, signal, sys, time
lock = open("/g/flock", "r+")
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    pass
def interrupt(number, frame):
    raise InterruptedError
signal.signal(signal.SIGALRM, interrupt)
signal.setitimer(signal.ITIMER_REAL, 0.3)
try:
    fcntl.flock(lock, fcntl.LOCK_EX)
except InterruptedError:
    print("interrupted", flush=True)
signal.signal(signal.SIGALRM, lambda *_: None)
child = os.fork()
if not child:
    fcntl.flock(lock, fcntl.LOCK_EX)
    os._exit(1)
time.sleep(0.3)
os.kill(child, signal.SIGKILL)
print("killed", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
signal.setitimer(signal.ITIMER_REAL, 0.3, 0.3)
fcntl.flock(lock, fcntl.LOCK_EX)
signal.setitimer(signal.ITIMER_REAL, 0)
box = open("/g/posix", "r+")
fcntl.lockf(box, fcntl.LOCK_EX, 10)
print("got", flush=True)
sys.stdin.readline()
os.open("/g/posix", os.O_RDWR)
os.close(os.open("/g/posix", os.O_RDWR))
print("closed", flush=True)
sys.stdin.readline()
"""


def test_locks_are_one(me: Caller) -> None:
    """The host's keep the guest out, and the guest's the host. POSIX locks end with any close, all with the guest."""
    host = me.make("host", {"flock": "", "posix": ""})

    def posix() -> bool:
        code = "import fcntl, sys; fcntl.lockf(open(sys.argv[1], 'r+'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
        command = ["python3", "-c", code, str(host / "posix")]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    with (host / "flock").open("r+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with me.started("--mount", f"/g={host}", "--", me.python, "-c", LOCKER) as process:
            assert process.stdout is not None
            assert process.stdin is not None
            assert [process.stdout.readline() for _ in range(2)] == [b"interrupted\n", b"killed -9\n"]
            fcntl.flock(held, fcntl.LOCK_UN)
            assert process.stdout.readline() == b"got\n"
            with pytest.raises(BlockingIOError):
                fcntl.flock(held, fcntl.LOCK_SH | fcntl.LOCK_NB)
            assert not posix()
            words = [needs.program("lslocks"), "-no", "INODE"]
            listed = subprocess.run(words, capture_output=True, text=True, check=True).stdout
            assert str((host / "posix").stat().st_ino) in listed.split()
            process.stdin.write(b"\n")
            process.stdin.flush()
            assert process.stdout.readline() == b"closed\n"
            assert posix()
            with pytest.raises(BlockingIOError):
                fcntl.flock(held, fcntl.LOCK_SH | fcntl.LOCK_NB)
            process.terminate()
            process.communicate(timeout=BOUND)
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)


INSERT = """
import sqlite3, sys
base = sqlite3.connect(sys.argv[1] + "/base", timeout=60, isolation_level=None)
for number in range(int(sys.argv[3])):
    base.execute("insert into t values (?, ?)", (sys.argv[2], number))
"""


def test_one_database(me: Caller, long: bool) -> None:
    """Rollback journal: the host and two guests write at once, and all is there."""
    host = me.make("host", {})
    count = 3000 if long else 60
    with closing(sqlite3.connect(host / "base")) as base:
        base.execute("create table t (who, n)")
        base.commit()
    line = ["--mount", f"/g={host}", "--", str(me.python), "-c", INSERT, "/g"]
    with me.started(*line, "one", str(count)) as one, me.started(*line, "two", str(count)) as two:
        subprocess.run(["python3", "-c", INSERT, host, "host", str(count)], check=True, timeout=BOUND * 10)
        for process in (one, two):
            assert process.communicate(timeout=BOUND * 10) == (b"", b"")
            assert process.returncode == 0
    with closing(sqlite3.connect(host / "base")) as base:
        assert base.execute("pragma integrity_check").fetchone() == ("ok",)
        assert base.execute("select count(*), count(distinct who) from t").fetchone() == (3 * count, 3)


def test_a_database_that_is_shared_by_mapping(me: Caller) -> None:
    """Write-ahead log: with the host in it the guest is told so, alone it works."""
    host = me.make("host", {})
    insert = f"{INSERT}\nprint('done')"
    with closing(sqlite3.connect(host / "base")) as base:
        base.execute("pragma journal_mode=wal")
        base.execute("create table t (who, n)")
        base.commit()
        quick = insert.replace("timeout=60", "timeout=0")
        done = me.run("--mount", f"/g={host}", "--", me.python, "-c", quick, "/g", "one", "1")
        assert done.returncode == 1
        assert b"lock" in done.stderr
        assert base.execute("pragma integrity_check").fetchone() == ("ok",)
    assert me.output("--mount", f"/g={host}", "--", me.python, "-c", insert, "/g", "one", "9") == "done\n"
    with closing(sqlite3.connect(host / "base")) as base:
        assert base.execute("select count(*) from t").fetchone() == (9,)


# Owners ---------------------------------------------------------------------------------------


def test_the_callers_files(caller: Caller) -> None:
    """They are root's in the guest, so that git trusts them, and what root makes there is the caller's."""
    host = caller.make("host", {"file": "x"})
    git = needs.program("git")
    script = f"cd /g && {git} init -q . && {git} status --short && touch made && chown 0:0 made"
    script += " && stat -c %u:%g file made"
    assert caller.output("--mount", f"/g={host}", "--", "sh", "-c", script) == "?? file\n0:0\n0:0\n"
    owner = (caller.user.uid, caller.user.gid) if caller.user else (os.getuid(), os.getgid())
    found = (host / "made").stat()
    assert (found.st_uid, found.st_gid) == owner


def test_a_user_without_a_name(caller: Caller) -> None:
    host = caller.make("host", {"file": "x"})
    script = "id -u; id -g; id -G; stat -c %u /g/file; echo $HOME"
    shown = 12345 if caller.user else 0
    expected = f"12345\n12345\n12345\n{shown}\n/\n"
    assert caller.output("--user", "12345", "--mount", f"/g={host}", "--", "sh", "-c", script) == expected


def test_what_only_root_may_read(caller: Caller) -> None:
    """A private root has a stand-in, with which users are made, get a password, and become others."""
    script = r"""
PATH=/usr/sbin:/usr/bin:/sbin:/bin
useradd -m somebody && echo somebody:secret | chpasswd && passwd -S somebody | cut -d' ' -f1,2
su somebody -c 'id -un'
grep -c '^root:' /etc/shadow
ls -A /root >/dev/null && touch /root/mine && ls /root/mine
"""
    assert caller.output("--", "sh", "-c", script).splitlines() == ["somebody P", "somebody", "1", "/root/mine"]


# Single files and foreign programs ------------------------------------------------------------


def test_a_single_file(me: Caller) -> None:
    """Over one that is there, and where nothing is; replaced on the host; for reading only."""
    host = me.make("host", {"app.conf": "one\n", "other": "not shown"})
    mounts = ["--mount", f"/etc/hostname={host}/app.conf", "--mount", f"/new/place.conf={host}/app.conf:ro"]
    script = r"""
cat /etc/hostname /new/place.conf; echo ready; read -r _
cat /etc/hostname /new/place.conf
echo more >>/etc/hostname
echo x 2>/dev/null >>/new/place.conf || echo read-only
rm /etc/hostname 2>/dev/null || echo busy
"""
    with me.started(*mounts, "--", "sh", "-c", script) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(3)] == [b"one\n", b"one\n", b"ready\n"]
        (host / "next").write_text("another\n")
        (host / "next").rename(host / "app.conf")
        output, _ = process.communicate(b"\n", timeout=BOUND)
    assert output.decode().split() == ["another", "another", "read-only", "busy"]
    assert (host / "app.conf").read_text() == "another\nmore\n"


def test_a_program_for_another_machine(me: Caller) -> None:
    foreign = bytearray(Path("/bin/true").read_bytes())
    foreign[18:20] = (183).to_bytes(2, "little")  # aarch64
    host = me.make("host", {})
    (host / "foreign").write_bytes(foreign)
    (host / "foreign").chmod(0o755)
    shutil.copy("/bin/true", host / "native")
    done = me.run("--mount", f"/g={host}", "--", "/g/foreign")
    assert done.returncode == 126
    assert b"another kind of machine" in done.stderr
    assert done.stderr.count(b"\n") == 1
    assert me.run("--mount", f"/g={host}", "--", "/g/native").returncode == 0


def test_a_log_that_is_rotated_often(me: Caller, long: bool) -> None:
    """Written in the guest, rotated on the host as soon as there is a line: each is in the file it was meant for."""
    host = me.make("host", {"log": ""})
    rounds = 10000 if long else 40
    script = "echo ready; while read -r l; do echo $l >>/g/log; done"
    with me.started("--mount", f"/g={host}", "--", "sh", "-c", script) as p:
        assert p.stdout is not None
        assert p.stdin is not None
        p.stdout.readline()
        written = []
        for number in range(rounds):
            p.stdin.write(b"%d\n" % number)
            p.stdin.flush()
            written.append(number)
            assert eventually(lambda: (host / "log").exists() and (host / "log").stat().st_size > 0)
            (host / "log").rename(host / f"log.{number}")
        p.communicate(timeout=BOUND)
    found = [int((host / f"log.{number}").read_text()) for number in range(rounds)]
    assert found == written
