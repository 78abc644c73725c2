"""The programs run on the host as well as in a guest: here they do what needs no privilege."""

from __future__ import annotations

import socket
import struct
import subprocess
from pathlib import Path

import pytest

from runtime.starter import _LAST, Call, complaint, enter_root, execute, load_module, mkdir, mount, program, write


def run(tmp_path: Path, content: bytes) -> subprocess.CompletedProcess[bytes]:
    path = tmp_path / "starter"
    path.write_bytes(content)
    path.chmod(0o755)
    return subprocess.run([path], capture_output=True, env={}, cwd=tmp_path)


def test_nothing_to_do(tmp_path: Path) -> None:
    done = run(tmp_path, program())
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_calls_are_made_in_turn(tmp_path: Path) -> None:
    target = tmp_path / "d" / "file"
    made = [mkdir(str(tmp_path / "d")), mkdir(str(tmp_path / "d")), mkdir(str(tmp_path / "d/e"), 0o700)]
    assert run(tmp_path, program(*made)).returncode == 0
    assert (tmp_path / "d/e").stat().st_mode & 0o777 == 0o700
    target.touch()
    done = run(tmp_path, program(write(str(target), b"con\0tent"), execute(["/bin/echo", "a", "", "b c"])))
    assert target.read_bytes() == b"con\0tent"
    assert done.stdout == b"a  b c\n"


def test_environment(tmp_path: Path) -> None:
    done = run(tmp_path, program(execute(["/usr/bin/env"], {"A": "1", "B": "x y"})))
    assert done.stdout == b"A=1\nB=x y\n"
    assert run(tmp_path, program(execute(["/usr/bin/env"]))).stdout == b""


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (mkdir("/nowhere/d"), "the guest cannot make /nowhere/d: No such file or directory"),
        (write("/nowhere/f", b"x"), "the guest cannot open /nowhere/f: No such file or directory"),
        (write("/etc", b"x"), "the guest cannot open /etc: Is a directory"),
        (execute(["/etc/passwd"]), "the guest cannot execute /etc/passwd: Permission denied"),
        (load_module("/nowhere.ko"), "the guest cannot open /nowhere.ko: No such file or directory"),
        (mount("a", "/nowhere", "tmpfs"), "the guest cannot mount a at /nowhere: "),
        (enter_root("/nowhere"), "the guest cannot enter /nowhere: No such file or directory"),
    ],
)
def test_first_failure_is_told(step: list[Call], message: str, tmp_path: Path) -> None:
    done = run(tmp_path, program(mkdir(str(tmp_path)), step, mkdir(str(tmp_path / "after"))))
    assert done.returncode == 1
    error = complaint(b"some log\r\n" + done.stderr.replace(b"\n", b"\r\n") + b"Kernel panic\r\n")
    assert str(error).startswith(message)
    assert not (tmp_path / "after").exists()


def test_errno_of_three_digits(tmp_path: Path) -> None:
    """Connecting to a file that is no socket: ECONNREFUSED, 111."""
    address = struct.pack("<H108s", socket.AF_UNIX, b"starter")
    made = Call(41, (socket.AF_UNIX, socket.SOCK_STREAM, 0), "make a socket")
    done = run(tmp_path, program([made, Call(42, (_LAST, address, len(address)), "connect")]))
    assert done.stderr == b"umlfs: cannot connect: errno 111\n"


def test_same_calls_give_the_same_program() -> None:
    assert program(mkdir("/a"), mkdir("/b")) == program(mkdir("/a"), mkdir("/b"))


def test_purpose_stays_one_line(tmp_path: Path) -> None:
    done = run(tmp_path, program(mkdir("/nowhere/a\nb")))
    assert done.stderr.count(b"\n") == 1


def test_log_without_a_complaint() -> None:
    assert complaint(b"Linux version\r\numlfs: cannot\r\n") is None
