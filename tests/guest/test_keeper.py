"""Real kernels, and our process killed at every moment: nothing may be left."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio

from runtime.process.keeper import Keeper
from runtime.process.processes import MARK, kill_marked
from tests.guest.caller import eventually
from umlfs.errors import UmlError

pytestmark = pytest.mark.guest

Arguments = Callable[..., list[str]]

TERMINAL = 99
HANG = "busybox mknod /tty1 c 4 1; exec 5<>/tty1; echo guest is up\nsleep 1000\n"
"""With a terminal open: the kernel has a helper for that, outside of its group."""
WORDS = (HANG, f"con1=fd:{TERMINAL}")

CHILD = """\
import os, signal, subprocess, sys
from pathlib import Path
from runtime.process.keeper import Keeper

def reached(moment):
    if moment == sys.argv[2]:
        os.kill(os.getpid(), signal.SIGKILL)

os.dup2(os.openpty()[1], 99)
with Keeper(Path(sys.argv[1])) as keeper:
    (keeper.directory / "socket").touch()
    group = keeper.directory.with_suffix(".group")
    group.mkdir()
    keeper.note_group(group)
    reached("directory made")
    kernel = keeper.spawn(sys.argv[3:], output=subprocess.PIPE, pass_fds=[99])
    reached("kernel started")
    for line in kernel.stderr:
        for moment in ("Core dump limits", "PROT_EXEC mmap", "Linux version", "guest is up"):
            if moment in line.decode(errors="replace"):
                reached(moment)
"""


def alive(parent: Path) -> list[str]:
    """The kernels' processes that belong to a keeper below `parent`, and those keepers."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            marked = f"{MARK}={parent}/".encode() in (entry / "environ").read_bytes()
            if marked or bytes(parent) in (entry / "cmdline").read_bytes():
                found.append(entry.name)
    return found


@pytest.fixture
def terminal() -> Iterator[int]:
    ends = os.openpty()
    yield ends[1]
    for end in ends:
        os.close(end)


def up(keeper: Keeper, arguments: list[str], *fds: int) -> subprocess.Popen[bytes]:
    """A kernel whose guest is up."""
    kernel = keeper.spawn(arguments, output=subprocess.PIPE, pass_fds=fds)
    assert kernel.stderr is not None
    assert any(b"guest is up" in line for line in kernel.stderr)
    kernel.stderr.close()
    return kernel


@pytest.mark.parametrize(
    "moment",
    ["directory made", "kernel started", "Core dump limits", "PROT_EXEC mmap", "Linux version", "guest is up"],
)
def test_killed(moment: str, kernel_arguments: Arguments, tmp_path: Path) -> None:
    parent = tmp_path / "parent"
    parent.mkdir()
    command = [sys.executable, "-c", CHILD, str(parent), moment, *kernel_arguments(*WORDS)]
    done = subprocess.run(command)
    assert done.returncode == -signal.SIGKILL
    assert eventually(lambda: not list(parent.iterdir()))
    assert eventually(lambda: not alive(tmp_path))


def test_killed_before_the_kernel_is_known(tmp_path: Path) -> None:
    """A launcher that tells its number only when we are dead."""
    os.mkfifo(tmp_path / "fifo")
    late = "f'while kill -0 {os.getpid()}; do sleep 0.01; done 2>/dev/null\\n'"
    script = f"import os\nfrom runtime.process import keeper\nkeeper._LAUNCH = {late} + keeper._LAUNCH\n{CHILD}"
    hang = ["/bin/sh", "-c", 'read line <"$0"', str(tmp_path / "fifo")]
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path), "kernel started", *hang])
    assert done.returncode == -signal.SIGKILL
    assert eventually(lambda: not list(tmp_path.glob("umlfs-*")))
    assert eventually(lambda: not alive(tmp_path))


async def test_orderly_end(kernel_arguments: Arguments, tmp_path: Path) -> None:
    arguments = kernel_arguments("echo 7 >/proc/exitcode\nexec poweroff -f\n")
    with Keeper(tmp_path) as keeper:
        assert keeper.directory.stat().st_mode & 0o7777 == 0o700
        kernel = keeper.spawn(arguments, output=subprocess.DEVNULL)
        with trio.fail_after(30):
            assert await keeper.wait(kernel) == 7
            assert await keeper.wait(kernel) == 7
    assert not keeper.directory.exists()
    assert not alive(tmp_path)


def test_leaving_ends_what_runs(kernel_arguments: Arguments, terminal: int, tmp_path: Path) -> None:
    with Keeper(tmp_path) as keeper:
        kernels = [up(keeper, kernel_arguments(HANG, f"con1=fd:{terminal}"), terminal) for _ in range(2)]
    assert [kernel.returncode for kernel in kernels] == [-signal.SIGKILL] * 2
    assert not alive(tmp_path)
    assert not keeper.directory.exists()
    keeper.close()


async def test_kernel_killed_alone(kernel_arguments: Arguments, terminal: int, tmp_path: Path) -> None:
    """Its helpers go as well, and another kernel of the keeper stays."""
    with Keeper(tmp_path) as keeper:
        kernel, other = (up(keeper, kernel_arguments(HANG, f"con1=fd:{terminal}"), terminal) for _ in range(2))
        os.kill(kernel.pid, signal.SIGKILL)
        with trio.fail_after(30):
            assert await keeper.wait(kernel) == -signal.SIGKILL
        assert kill_marked(f"{keeper.directory}/1") == 0
        assert other.poll() is None
    assert not alive(tmp_path)


async def test_waiting_can_be_cancelled(kernel_arguments: Arguments) -> None:
    with Keeper() as keeper:
        kernel = keeper.spawn(kernel_arguments(HANG), output=subprocess.DEVNULL)
        with trio.move_on_after(0):
            await keeper.wait(kernel)
        assert kernel.poll() is None


def test_missing_kernel_and_directory(tmp_path: Path) -> None:
    with Keeper() as keeper:
        kernel = keeper.spawn([tmp_path / "missing"], output=subprocess.PIPE)
        assert kernel.stderr is not None
        assert b"missing" in kernel.stderr.read()
        kernel.stderr.close()
        assert kernel.wait() == 127
    with pytest.raises(UmlError, match="cannot be made ready"), Keeper(tmp_path / "missing"):
        pass
    with Keeper() as keeper, pytest.raises(UmlError, match="cannot be started"):
        keeper.spawn(["/bin/true"], cwd=tmp_path / "missing")


@pytest.mark.parametrize("named", ["relative", "/nowhere", "/tmp/with space", "/tmp/" + "x" * 70])
def test_place_of_the_directory(named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", named)
    with Keeper() as keeper:
        assert keeper.directory.parent == Path("/tmp")


def test_runtime_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Path(f"/tmp/umlfs-test-{os.getpid()}")
    place.mkdir()
    try:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(place))
        with Keeper() as keeper:
            assert keeper.directory.parent == place
    finally:
        place.rmdir()
