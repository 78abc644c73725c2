"""One file, two sides: what programs hold on to while others work on the same directory from beneath the mount.

A plain directory that two processes share is the reference: what holds there holds on our mounts, in every cache mode.
`tests/guest/test_sharing.py` has the same for guests.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests import needs
from tests.guest.caller import eventually
from tests.mounts.server import mounted
from tests.two_sides import ROTATIONS, play_all, rotate_while_followed, shell

Sides = tuple[Path, Path]
"""A directory as one side has it, and as the other side has it."""
SECONDS = 5.0


@pytest.fixture(scope="module", params=["plain", "auto", "always", "never"])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sides]:
    beneath, above = tmp_path_factory.mktemp("beneath"), tmp_path_factory.mktemp("above")
    with contextlib.ExitStack() as stack:
        if request.param == "plain":
            above = beneath
        else:
            stack.enter_context(mounted(beneath, above, f"cache={request.param}"))
        yield beneath, above


@pytest.fixture
def sides(both: Sides, request: pytest.FixtureRequest) -> Sides:
    """A new directory for each test."""
    name = request.node.originalname
    (both[0] / name).mkdir()
    return both[0] / name, both[1] / name


soon = partial(eventually, seconds=SECONDS)


def replace(path: Path, content: str) -> None:
    """As an editor saves."""
    path.with_name("next").write_text(content)
    path.with_name("next").rename(path)


def test_an_editors_save(sides: Sides) -> None:
    """Who has the former file open keeps it: to read, to look at, to change."""
    beneath, above = sides
    (beneath / "file").write_text("old")
    with (above / "file").open("r+") as file:
        replace(beneath / "file", "newer")
        assert os.fstat(file.fileno()).st_size == 3
        os.fchmod(file.fileno(), 0o600)
        assert os.fstat(file.fileno()).st_mode & 0o777 == 0o600
        assert file.read() == "old"
        assert (beneath / "file").stat().st_mode & 0o777 != 0o600


def test_a_rotated_log(sides: Sides) -> None:
    beneath, above = sides
    (beneath / "log").touch()
    with (above / "log").open("a") as log:
        for number in range(20):
            (beneath / "log").rename(beneath / f"log.{number}")
            (beneath / "log").touch()
            print(number, file=log, flush=True)
    assert (beneath / "log.0").read_text() == "".join(f"{number}\n" for number in range(20))


def test_a_file_that_is_removed(sides: Sides) -> None:
    beneath, above = sides
    (beneath / "file").write_text("content")
    with (above / "file").open("r+") as file:
        (beneath / "file").unlink()
        assert file.read() == "content"
        file.write(" and more")
        file.flush()
        assert os.fstat(file.fileno()).st_size == 16
        file.seek(0)
        assert file.read() == "content and more"


def test_an_upgrade_of_a_running_program(sides: Sides) -> None:
    beneath, above = sides
    program = Path(needs.program("sleep"))
    (beneath / "program").write_bytes(program.read_bytes())
    (beneath / "program").chmod(0o755)
    with subprocess.Popen([above / "program", "1000"]) as process:
        replace(beneath / "program", "another")
        time.sleep(0.1)
        assert process.poll() is None
        process.terminate()
    assert process.returncode == -15


def test_a_mapping_of_a_file_that_is_replaced(sides: Sides) -> None:
    beneath, above = sides
    (beneath / "file").write_bytes(b"old" * 4096)
    with (above / "file").open("rb") as file, mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ) as mapping:
        replace(beneath / "file", "new")
        assert mapping[:] == b"old" * 4096


def test_a_current_directory(sides: Sides) -> None:
    beneath, above = sides
    (beneath / "directory").mkdir()
    words = ["sh", "-c", "echo ready; read -r _; echo x >file"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(words, cwd=above / "directory", text=True, **pipes) as process:  # type: ignore[call-overload]
        assert process.stdout.readline() == "ready\n"
        (beneath / "directory").rename(beneath / "moved")
        process.communicate("\n", timeout=SECONDS)
    assert process.returncode == 0
    assert (beneath / "moved" / "file").read_text() == "x\n"


@pytest.mark.parametrize("setting", ["plain", "bindfs", "mount", "mount-never"])
def test_programs(setting: str, tmp_path: Path, long: bool) -> None:
    """Each scenario, with the other side on a plain directory, a bindfs, and mounts of ours."""
    beneath, above = tmp_path / "beneath", tmp_path / "above"
    beneath.mkdir()
    above.mkdir()
    with contextlib.ExitStack() as stack:
        if setting == "plain":
            above = beneath
        elif setting == "bindfs":
            subprocess.run([needs.program("bindfs"), beneath, above], check=True)
            stack.callback(subprocess.run, ["umount", str(above)], check=True)
        else:
            cache = "cache=never" if "never" in setting else "cache=auto"
            others = () if os.geteuid() else ("allow_other",)  # dotlockfile is another group's
            stack.enter_context(mounted(beneath, above, cache, *others))
        here, there = stack.enter_context(shell()), stack.enter_context(shell())
        play_all(setting, here, there, (beneath, str(above)), long)


@pytest.mark.slow
@pytest.mark.parametrize("setting", ["plain", "auto", "notify"])
def test_tail_across_many_rotations(setting: str, tmp_path: Path) -> None:
    beneath, above = tmp_path / "beneath", tmp_path / "above"
    beneath.mkdir()
    above.mkdir()
    (beneath / "log").touch()
    with contextlib.ExitStack() as stack:
        if setting == "plain":
            above = beneath
        else:
            stack.enter_context(mounted(beneath, above, "notify" if setting == "notify" else "cache=auto"))
        tail = [needs.program("tail"), "-n", "+1", "-s", "0.01", "-F", str(above / "log")]
        process = stack.enter_context(subprocess.Popen(tail, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL))
        stack.callback(process.kill)
        rotate_while_followed(beneath / "log", process, ROTATIONS)
