"""What the host writes for a guest's shell, read by that very shell."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from runtime import guest
from runtime.guest import Boot, Mount, explain, job_script
from runtime.guest.initramfs import find_busybox

WORDS = ["", " a  b ", "new\nline", "quo'te\"", "$HOME `id`", "*", "--help", "\\", "é漢", "\udcff"]


def run(tmp_path: Path, script: bytes) -> subprocess.CompletedProcess[bytes]:
    """A job's script in a shell of this host; what it tells the agent lands in `tmp_path`."""
    (tmp_path / "control/1").mkdir(parents=True, exist_ok=True)
    text = script.replace(guest.HERE.encode(), bytes(tmp_path))
    return subprocess.run(
        [find_busybox(), "sh", "-c", text], capture_output=True, stdin=subprocess.DEVNULL, cwd="/", check=False
    )


def job(
    *command: str, directory: str = "/", must_enter: bool = False, environment: Mapping[str, str] | None = None
) -> bytes:
    variables = {"PATH": "/usr/bin:/bin", **(environment or {})}
    return job_script(command, number=1, directory=directory, must_enter=must_enter, environment=variables, user=None)


def test_words_arrive_as_they_are(tmp_path: Path) -> None:
    done = run(tmp_path, job("printf", "[%s]", *WORDS))
    assert done.stdout == "".join(f"[{word}]" for word in WORDS).encode(errors="surrogateescape")
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "pid.1").read_text().strip().isdigit()


def test_variables_arrive_as_they_are(tmp_path: Path) -> None:
    odd = {"A": WORDS[3], "IFS": "x:", "path": "p", "user": "nobody", "name": "n", "B": "a\nb"}
    done = run(tmp_path, job("env", "-0", environment=odd))
    assert {f"{name}={value}".encode() for name, value in odd.items()} <= set(done.stdout.split(b"\0"))


def test_directories(tmp_path: Path) -> None:
    place = tmp_path / "-a b'c"
    place.mkdir()
    assert run(tmp_path, job("pwd", directory=str(place))).stdout.decode() == f"{place}\n"
    assert run(tmp_path, job("pwd", directory="/nowhere")).stdout == b"/\n"
    assert run(tmp_path, job("pwd", directory="/nowhere", must_enter=True)).returncode == 125
    assert (tmp_path / "control/1/status").read_text() == "failed 125 /nowhere: no such directory in the guest\n"


@pytest.mark.parametrize(
    ("path", "status"),
    [("/nowhere:/usr/bin:/bin", 0), ("/nowhere", 127), ("/*/bin", 127), ("", 127)],
)
def test_search(tmp_path: Path, path: str, status: int) -> None:
    """As execvp does it: no pattern, and no applet of the shell's."""
    assert run(tmp_path, job("true", environment={"PATH": path})).returncode == status


def test_the_name_is_kept(tmp_path: Path) -> None:
    assert run(tmp_path, job("sh", "-c", "echo $0")).stdout == b"sh\n"
    assert run(tmp_path, job("/bin/sh", "-c", "echo $0")).stdout == b"/bin/sh\n"


@pytest.mark.parametrize(
    ("report", "meaning"),
    [
        ("", "the guest gave no reason"),
        ("something else\nand more", "something else"),
        (
            "mount: mounting mount0 on /root/etc/passwd failed: Not a directory\nmount: more",
            "/etc/passwd: the guest cannot mount anything there: Not a directory; make it a directory first",
        ),
        (
            "mount: mounting /dev/vda on /root failed: Invalid argument",
            "the root cannot be mounted: Invalid argument; a disk that is the root has a filesystem on it",
        ),
        (
            "mkdir: can't create directory '/proc/x': No such file or directory",
            "/proc/x: the guest cannot mount anything there: No such file or directory; make it a directory first",
        ),
    ],
)
def test_reports(report: str, meaning: str) -> None:
    assert explain(report) == meaning


def test_lines_of_an_fstab() -> None:
    assert Mount("tag", "/a b\n\\#\t").line("/root") == "tag /root/a\\040b\\012\\134#\\011 virtiofs rw 0 0\n"


@pytest.mark.parametrize(
    ("boot", "writes"),
    [
        (Boot(Mount("root", "/"), overlay=True), False),
        (Boot(Mount("root", "/"), overlay=False), True),
        (Boot(Mount("root", "/"), overlay=True, mounts=[Mount("m", "/m", options="ro")]), False),
        (Boot(Mount("root", "/"), overlay=True, mounts=[Mount("m", "/m")]), True),
    ],
)
def test_what_outlives_a_guest(boot: Boot, writes: bool) -> None:
    assert boot.writes is writes
    found = guest.archive(boot, "load modules")
    assert (b"settle=sync\n" in found) is writes
    assert (b"settle=:\n" in found) is not writes
    assert b"load modules" in found
