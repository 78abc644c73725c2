"""Guests that do not come up, or do not last: one line that says why, status 124 or 125, nothing left behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

import runtime
from tests import needs
from tests.guest.caller import BOUND, Caller, eventually
from umlfs.errors import UmlError

pytestmark = pytest.mark.guest


def test_panic(caller: Caller) -> None:
    """The end of the log, and then the line."""
    done = caller.run("--", "sh", "-c", "echo before; sleep 0.1; echo c >/proc/sysrq-trigger; sleep 100")
    *log, line = done.stderr.decode().splitlines()
    assert (done.returncode, done.stdout) == (125, b"before\n")
    assert any("Kernel panic" in entry for entry in log)
    assert line.startswith("uml: the guest ended by itself (the kernel died of signal 6)")


def test_out_of_memory(caller: Caller) -> None:
    """The guest's kernel ends the command, not itself."""
    done = caller.run("--mem", "64M", "--", caller.python, "-c", "x = []\nwhile True: x.append(bytearray(1 << 20))")
    assert done.returncode == 128 + signal.SIGKILL
    done = caller.run("--mem", "64M", "--", "sh", "-c", "cat /dev/zero >/tmp/big; echo $?")
    assert (done.returncode, done.stdout) == (0, b"1\n")
    assert b"No space left on device" in done.stderr


@pytest.mark.parametrize("size", ["1M", "1000000T", "many", "-1M", "64M M"])
def test_absurd_memory(me: Caller, size: str) -> None:
    assert me.error("--mem", size, "--", "true")[0] == 2


def test_the_command_takes_too_long(caller: Caller) -> None:
    complaint = "the command did not end within 2 s; give it more time with --timeout"
    assert caller.error("--timeout", "2", "--", "sleep", "1000") == (124, complaint)


def test_the_boot_takes_too_long(me: Caller) -> None:
    """A kernel that is stopped."""
    with me.started("--timeout", "3", "--", "true") as process:
        assert eventually(lambda: bool(list(me.runtime.glob("umlfs-*/*/pid"))))
        pid = next(iter(me.runtime.glob("umlfs-*/*/pid")))
        assert eventually(lambda: pid.read_text().strip().isdigit())
        os.kill(int(pid.read_text()), signal.SIGSTOP)
        _, errors = process.communicate(timeout=BOUND)
        assert (process.returncode, errors.count(b"\n")) == (124, 1)
        assert b"did not end within 3 s" in errors


def test_the_kernel_is_killed(me: Caller) -> None:
    with me.started("--", "sh", "-c", "echo ready; sleep 1000") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        os.kill(int(next(iter(me.runtime.glob("umlfs-*/*/pid"))).read_text()), signal.SIGKILL)
        assert process.wait(BOUND) == 125
        assert process.stderr is not None
        assert b"the kernel died of signal 9" in process.stderr.read()


def test_places_that_are_missing_in_a_root_that_is_written(me: Caller) -> None:
    """Said before the boot, where that can be known."""
    root, share = (
        me.make("root", {"there/file": "", **dict.fromkeys(("dev/x", "proc/x", "run/x", "sys/x", "tmp/x"), "")}),
        me.make("share", {"sub/file": ""}),
    )
    (root / "link").symlink_to("elsewhere")
    missing = "no such directory in the root, whose changes go through; make it first, or leave out --rw"
    for place in ("/new", "/there/new", "/there/../new"):
        line = me.error("--root", str(root), "--rw", "--mount", f"{place}={share}", "--", "true")
        assert line == (2, f"{os.path.normpath(place)}: {missing}")
    # Below another mount, or behind a link, only the guest knows.
    dry = ("--dry-run", "--root", str(root), "--rw", "--mount", f"/there={share}")
    assert me.output(*dry, "--mount", f"/there/sub={share}", "--mount", f"/link/x={share}", "--", "true")


def test_more_mounts_than_a_kernel_has_interrupts_for(me: Caller) -> None:
    share = me.make("share", {"file": ""})
    mounts = [word for number in range(120) for word in ("--mount", f"/m/{number}={share}")]
    assert me.error(*mounts, "--", "true") == (
        2,
        "123 devices for mounts, disks and slots: a guest has interrupts for 44; "
        "mount a directory that has several of them in it",
    )
    assert me.output(*mounts[:82], "--", "sh", "-c", "ls /m/*/file | wc -l") == "41\n"


def test_no_kernel(me: Caller) -> None:
    assert me.error("--kernel", "/nowhere", "--", "true")[0] == 125
    status, line = me.error("--kernel", "/bin/true", "--", "true")
    assert (status, line.partition(";")[0]) == (125, "/bin/true: a program, but not a User-mode Linux kernel")


def test_roots_that_are_none(me: Caller) -> None:
    me.make("here", ["file"])
    for root in ("nowhere", "madeup:here", "/proc", "hostfs:", ""):
        assert me.error("--root", root, "--", "true")[0] == 2
    assert me.error("--root", "here/file", "--", "true")[0] == 125  # an image, for all we know, with nothing in it


def test_modules_of_another_version(me: Caller) -> None:
    """A kernel beside which lie modules, but not its own, and none are packaged for it."""
    kernel = me.directory / "linux.uml"
    data = needs.path(shutil.which("linux.uml") or "/usr/bin/linux.uml").read_bytes()
    version = subprocess.run(["linux.uml", "--version"], capture_output=True, check=True).stdout.strip()
    kernel.write_bytes(data.replace(version, b"9" + version[1:]))
    kernel.chmod(0o755)
    status, line = me.error("--kernel", kernel, "--", "true")
    assert status == 125
    assert line.startswith(f"no modules for kernel 9{version[1:].decode()}")


@pytest.mark.parametrize("lack", ["runtime directory", "cache and runtime directory", "memory"])
def test_a_full_disk(me: Caller, lack: str, tmp_path: Path) -> None:
    """In a namespace of its own, where small filesystems lie over the directories."""
    small = "mount -t tmpfs -o size=64k small"
    scripts = {
        "runtime directory": f'{small} "$1"',
        "cache and runtime directory": f'{small} "$1"; {small} "$2"; export XDG_CACHE_HOME="$2"',
        "memory": "mount -t tmpfs -o size=40m small /dev/shm; mount --bind /dev/shm /var/tmp; export TMPDIR=/dev/shm",
    }
    script = f'set -e; {scripts[lack]}; shift 2; mkdir -p {me.directory}; "$@"'
    memory = ["--mem", "1000G"] if lack == "memory" else []
    line = me.command("run", *memory, "--", "true")
    namespace = [*needs.mount_namespace(), "sh", "-c", script, "sh", str(me.runtime), str(tmp_path), *line]
    done = subprocess.run(namespace, capture_output=True, stdin=subprocess.DEVNULL, timeout=BOUND, check=False)
    text = done.stderr.decode()
    assert done.returncode in ((125,) if lack != "memory" else (125, 2))
    assert text.startswith("uml: ")
    assert text.count("\n") == 1


def test_without_a_cache(caller: Caller) -> None:
    caller.variables["XDG_CACHE_HOME"] = "/proc/nowhere"
    assert caller.output("--", "echo", "fine") == "fine\n"


def test_dry_run(me: Caller) -> None:
    lines = me.output("--dry-run", "--mount", "/src=.:ro", "--", "ls", "a b").splitlines()
    assert [line.split()[0] for line in lines] == ["kernel", "memory", "root", "mount", "start", "command"]
    assert lines[-1].endswith("ls 'a b'")


async def test_a_time_limit_is_an_exception_of_its_own() -> None:
    with pytest.raises(runtime.TimeLimitError, match=r"within 1\.5 s") as raised:
        await runtime.run(["sleep", "1000"], timeout=1.5)
    assert (raised.value.seconds, raised.value.status) == (1.5, 124)
    assert isinstance(raised.value, UmlError)
