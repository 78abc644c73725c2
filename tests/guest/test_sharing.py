"""One file, two machines: what a program in a guest holds on to while the host works on the same directory."""

from __future__ import annotations

import fcntl
import os
import shlex
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests import calls, needs
from tests.guest.caller import BOUND, Caller, caller_as
from tests.ordinary import accounts_at_rest
from tests.two_sides import ROTATIONS, Side, play_all, rotate_while_followed, shell

pytestmark = pytest.mark.guest

Shared = tuple[Path, Side]
"""A directory that the guest has at /g, at /n without caches, and a shell in the guest."""


@pytest.fixture(scope="module")
def shared() -> Iterator[Shared]:
    """One guest for what does not end it. Single files are mounted over one that is there, and where nothing is."""
    with caller_as(None) as me:
        host = me.make("host", {"app.conf": "one\n"})
        mounts = [f"/g={host}", f"/n={host}:cache=never", f"/etc/hostname={host}/app.conf"]
        words = [word for mount in [*mounts, f"/new/place.conf={host}/app.conf:ro"] for word in ("--mount", mount)]
        with me.started(*words, "--", "sh") as process:
            yield host, Side(process)
            assert process.communicate(timeout=BOUND) == (b"", b"")


@pytest.mark.parametrize(("setting", "seen"), [("guest", "/g"), ("guest-never", "/n")])
def test_programs(shared: Shared, setting: str, seen: str, long: bool) -> None:
    """Each scenario of two sides."""
    host, there = shared
    with shell() as here:
        play_all(setting, here, there, (host, seen), long)
    there.do("cd /")


@pytest.mark.slow
def test_tail_across_many_rotations() -> None:
    with caller_as(None) as me:
        host = me.make("host", {"log": ""})
        words = ["--mount", f"/g={host}:notify", "--", "tail", "-n", "+1", "-s", "0.01", "-F", "/g/log"]
        with me.started(*words, stderr=subprocess.DEVNULL) as process:
            rotate_while_followed(host / "log", process, ROTATIONS)


@pytest.mark.parametrize("seen", ["/g", "/n"])
def test_calls(shared: Shared, seen: str) -> None:
    """Those of the table in docs/mounting.md."""
    host, there = shared
    directory = host / f"calls{seen[1:]}"
    directory.mkdir()
    calls.prepare(directory)
    output = there.do(f"/usr/bin/python3 -c {shlex.quote(calls.PROGRAM)} {seen}/{directory.name}")
    answers = calls.said(output)
    if seen == "/n" and answers["shared_mapping"] == "ENODEV":  # before Linux 6.6
        del answers["shared_mapping"]
    assert answers == {call: answer for call, answer in calls.SAYS.items() if call in answers}
    assert len(answers) >= len(calls.SAYS) - (seen == "/n")
    assert (directory / "copy").read_bytes() == b"content"


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


def test_a_database_that_is_shared_by_mapping(shared: Shared, me: Caller) -> None:
    """Write-ahead log: with the host in it the guest is told so, alone it works."""
    host, guest = shared
    insert = shlex.join([str(me.python), "-c", INSERT.replace("timeout=60", "timeout=0"), "/g", "one"])
    with closing(sqlite3.connect(host / "base")) as base:
        base.execute("pragma journal_mode=wal")
        base.execute("create table t (who, n)")
        base.commit()
        assert "lock" in guest.do(f"{insert} 1")
        assert "OperationalError" in guest.do(f"{insert.replace('/g one', '/n one')} 1")
        assert base.execute("pragma integrity_check").fetchone() == ("ok",)
    assert guest.do(f"{insert} 9 && echo done") == "done\n"
    with closing(sqlite3.connect(host / "base")) as base:
        assert base.execute("select count(*) from t").fetchone() == (9,)


MAPPER = """
import mmap, os
with open("/n/mapped", "r+b") as file:
    try:
        mapping = mmap.mmap(file.fileno(), 0)
    except OSError as error:
        print(error.strerror)
    else:
        mapping[:3] = b"new"
        mapping.close()
        os.fsync(file.fileno())
        print("mapped")
"""


def test_a_shared_mapping_without_caches(shared: Shared, me: Caller) -> None:
    """From Linux 6.6 on."""
    host, guest = shared
    (host / "mapped").write_text("old")
    release = [int(part) for part in guest.do("uname -r").split(".")[:2]]
    can = release >= [6, 6]
    assert guest.do(shlex.join([str(me.python), "-c", MAPPER])) == ("mapped\n" if can else "No such device\n")
    assert (host / "mapped").read_text() == ("new" if can else "old")


def test_a_log_that_is_rotated_often(shared: Shared, long: bool) -> None:
    """Written in the guest, rotated on the host as soon as there is a line: each is in the file it was meant for."""
    host, guest = shared
    rounds = 10000 if long else 40
    for number in range(rounds):
        guest.do(f"echo {number} >>/g/log")
        (host / "log").rename(host / f"log.{number}")
    assert [int((host / f"log.{number}").read_text()) for number in range(rounds)] == list(range(rounds))


def test_a_single_file(shared: Shared) -> None:
    """Replaced on the host; for reading only."""
    host, guest = shared
    assert guest.do("cat /etc/hostname /new/place.conf") == "one\none\n"
    (host / "next").write_text("another\n")
    (host / "next").rename(host / "app.conf")
    assert guest.do("cat /etc/hostname /new/place.conf; echo more >>/etc/hostname") == "another\nanother\n"
    assert guest.do("(echo x >>/new/place.conf) 2>/dev/null || echo read-only") == "read-only\n"
    assert guest.do("rm /etc/hostname 2>/dev/null || echo busy") == "busy\n"
    assert (host / "app.conf").read_text() == "another\nmore\n"


# Owners ---------------------------------------------------------------------------------------


ROOTS = r"""
cd /g && git init -q . && git status --short && touch made && chown 0:0 made && stat -c %u:%g file made
PATH=/usr/sbin:/usr/bin:/sbin:/bin
useradd -m somebody && echo somebody:secret | chpasswd && passwd -S somebody | cut -d' ' -f1,2
su somebody -c 'id -un'
grep -c '^root:' /etc/shadow
ls -A /root >/dev/null && touch /root/mine && ls /root/mine
"""


def test_the_callers_files(caller: Caller) -> None:
    """They are root's in the guest, so that git trusts them, and what root makes there is the caller's.

    What only root may read has a stand-in in a private root, with which users are made, get a password, become others.
    """
    needs.program("git")
    host = caller.make("host", {"file": "x"})
    told = ["?? file", "0:0", "0:0", "somebody P", "somebody", "1", "/root/mine"]
    with accounts_at_rest():
        assert caller.output("--mount", f"/g={host}", "--", "sh", "-c", ROOTS).splitlines() == told
    owner = (caller.user.uid, caller.user.gid) if caller.user else (os.getuid(), os.getgid())
    found = (host / "made").stat()
    assert (found.st_uid, found.st_gid) == owner


def test_a_user_without_a_name(caller: Caller) -> None:
    host = caller.make("host", {"file": "x"})
    script = "id -u; id -g; id -G; stat -c %u /g/file; echo $HOME"
    shown = 12345 if caller.user else 0
    expected = f"12345\n12345\n12345\n{shown}\n/\n"
    assert caller.output("--user", "12345", "--mount", f"/g={host}", "--", "sh", "-c", script) == expected


# Foreign programs ---------------------------------------------------------------------------


def test_a_program_for_another_machine(me: Caller) -> None:
    foreign = bytearray(Path("/bin/true").read_bytes())
    foreign[18:20] = (183).to_bytes(2, "little")  # aarch64
    host = me.make("host", {})
    (host / "foreign").write_bytes(foreign)
    (host / "foreign").chmod(0o755)
    done = me.run("--mount", f"/g={host}", "--", "/g/foreign")
    assert done.returncode == 126
    assert b"another kind of machine" in done.stderr
    assert done.stderr.count(b"\n") == 1
