"""`uml run` with every pair of what can be given to it: it works and leaves nothing, or says why in one line."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from tests import needs
from tests.combinations.pairs import Row, named, rows
from tests.combinations.world import DISK_SIZE, World
from tests.guest.caller import BOUND, caller_as
from tests.ordinary import OrdinaryUser
from umlfs.blocks.foreign import HEAD, format_of_head

pytestmark = pytest.mark.guest

AXES: Final = {
    "root": ("host", "tree", "humfs", "image", "cow", "qcow2"),
    "access": ("overlay", "rw"),
    "mount": ("none", "there", "new", "ro", "append", "map", "cache", "nested"),
    "disk": ("none", "raw", "cow", "qcow2", "nbd", "read-only"),
    "driver": ("virtio", "native"),
    "streams": ("pipes", "terminal", "closed", "null"),
    "who": ("root", "ordinary"),
    "kernel": ("none", "another"),
    "more": ("none", "pwd", "env", "user", "timeout", "jail", "verbose"),
}
OPTIONS: Final = {
    "mount": {
        "there": ["/there=share"],
        "new": ["/new/place=share"],
        "ro": ["/there=share:ro"],
        "append": ["/there=share:append"],
        "map": ["/there=share:map=0:0:1000"],
        "cache": ["/there=share:cache=always"],
        "nested": ["/there=share", "/there/sub=share2"],
    },
    "disk": {
        "raw": ["ubd0=disk.img"],
        "cow": ["ubd0=disk.cow,base.img"],
        "qcow2": ["ubd0=disk.qcow2"],
        "nbd": ["ubd0=nbd+unix:///?socket=nbd"],
        "read-only": ["ubd0r=disk.img"],
    },
    "root": {
        "tree": ["tree"],
        "humfs": ["humfs:tree.humfs"],
        "image": ["raw:root.img"],
        "cow": ["cow:root.cow"],
        "qcow2": ["root.qcow2"],
    },
    "more": {
        "pwd": ["--pwd", "/etc"],
        "env": ["--env", "A=b c"],
        "user": ["--user", "0"],
        "timeout": ["--timeout", "100"],
        "jail": ["--jail", "auto"],
        "verbose": ["-v"],
    },
}
BLOCK: Final = 4096
STATUSES: Final = (2, 125)


@pytest.fixture(scope="module")
def worlds(callers: Mapping[str, OrdinaryUser | None]) -> Iterator[dict[str, World]]:
    """One of root's and one of an ordinary user's."""
    with ExitStack() as stack:
        found = {}
        for who, whose in callers.items():
            found[who] = World(stack.enter_context(caller_as(whose)))
            found[who].make()
            stack.enter_context(found[who].serving())
        yield found


def selected() -> list[object]:
    """All pairs, of which CI runs every third, and every three with --long."""
    found = rows(AXES)
    marks = [() if number % 3 == 0 else (pytest.mark.slow,) for number in range(len(found))]
    return [pytest.param(row, id=named(row), marks=mark) for row, mark in zip(found, marks, strict=True)]


@pytest.mark.parametrize("row", selected())
def test_a_combination(row: Row, worlds: dict[str, World], another: list[str]) -> None:
    world = worlds[row["who"]]
    prepare(world)
    done = run(world, row, another if row["kernel"] == "another" else [])
    check_words(row, done)
    why = refusal(row)
    if why is None:
        check_work(world, row, done)
    else:
        assert done.returncode in STATUSES, done
        assert why in done.stderr.decode(), done
    assert world.caller.left() == served(world)


def prepare(world: World) -> None:
    """As every command finds it."""
    for name in ("written", "sub/written"):
        for top in ("share", "share2", "tree/there", "tree/etc"):
            (world.top / top / name).unlink(missing_ok=True)
    with (world.top / "disk.img").open("r+b") as disk:
        disk.write(bytes(BLOCK))


def served(world: World) -> list[str]:
    """What is there of the world's own server."""
    return [each for each in world.caller.left() if each.startswith("process ") and _serves(each.split()[1])]


def _serves(pid: str) -> bool:
    return b"\0serve\0" in Path(f"/proc/{pid}/cmdline").read_bytes()


# The command ----------------------------------------------------------------------------------


def words_of(row: Row) -> list[str]:
    """The command line, up to the command."""
    words = [word for it in OPTIONS["root"].get(row["root"], []) for word in ("--root", it)]
    words += [word for it in OPTIONS["mount"].get(row["mount"], []) for word in ("--mount", it)]
    words += [word for it in OPTIONS["disk"].get(row["disk"], []) for word in ("--ubd", it)]
    words += OPTIONS["more"].get(row["more"], [])
    words += ["--rw"] if row["access"] == "rw" else []
    return [*words, *(["--ubd-driver", "native"] if row["driver"] == "native" else []), "--mem", "96M"]


def place(row: Row) -> str:
    return "/new/place" if row["mount"] == "new" else "/there"


def script(row: Row) -> str:
    """What the guest does: says what it sees, and writes wherever that should be possible."""
    lines = ["set -e", "block="]
    if row["root"] != "host":
        lines += ["cat /etc/mark", "echo guest >/etc/written"]
    if row["mount"] != "none":
        lines += [f"cat {place(row)}/seen", f"echo guest 2>/dev/null >{place(row)}/written || echo refused"]
    if row["mount"] == "nested":
        lines.append(f"cat {place(row)}/sub/seen")
    if row["disk"] != "none":
        lines.append("stat -c %F /dev/ubda")
        lines.append("while [ ${#block} -lt 4096 ]; do block=${block}wwwwwwww; done")
        lines.append("echo -n $block >/tmp/block")
        lines.append("dd if=/tmp/block of=/dev/ubda bs=4096 count=1 conv=fsync 2>/dev/null || echo refused")
    if row["more"] == "env":
        lines.append('echo "$A"')
    lines.append("echo works")
    return "\n".join(lines)


def run(world: World, row: Row, kernel: Sequence[str]) -> subprocess.CompletedProcess[bytes]:
    command = world.caller.command("run", *kernel, *words_of(row), "--", "sh", "-c", script(row))
    if row["streams"] == "terminal":
        return on_terminal(command)
    if row["streams"] == "closed":
        command = ["sh", "-c", '"$@" <&-', "sh", *command]
    stdin = subprocess.PIPE if row["streams"] == "pipes" else subprocess.DEVNULL
    return subprocess.run(command, stdin=stdin, capture_output=True, timeout=BOUND, check=False)


def on_terminal(command: Sequence[str]) -> subprocess.CompletedProcess[bytes]:
    """A command whose input and output are a terminal; its errors are a pipe."""
    ours, theirs = os.openpty()
    said = b""
    with subprocess.Popen(
        ["setsid", "-w", "-c", *command], stdin=theirs, stdout=theirs, stderr=subprocess.PIPE, start_new_session=True
    ) as process:
        os.close(theirs)
        os.write(ours, b"typed\n")
        try:
            while piece := os.read(ours, 65536):
                said += piece
        except OSError:  # the other side is closed
            pass
        finally:
            os.close(ours)
        assert process.stderr is not None
        errors = process.stderr.read()
    return subprocess.CompletedProcess(process.args, process.returncode, said.replace(b"\r\n", b"\n"), errors)


# What must come of it -------------------------------------------------------------------------


def refusal(row: Row) -> str | None:
    """Why this cannot be, in a word of the error; None if it can."""
    if row["access"] == "rw":
        if row["root"] == "host" and row["mount"] in ("new", "there", "ro", "append", "map", "cache", "nested"):
            return "no such directory"
        if row["mount"] == "new":
            return "no such directory"
    if row["driver"] == "native" and row["disk"] in ("qcow2", "nbd"):
        return "native"
    return None


def check_words(row: Row, done: subprocess.CompletedProcess[bytes]) -> None:
    """One line of ours at most, but for the log of -v; no traceback, no panic."""
    said = done.stderr.decode(errors="replace")
    for word in ("Traceback", "internal error", "Kernel panic"):
        assert word not in said, said
    if row["more"] != "verbose":
        assert len(said.splitlines()) <= 1, said
        assert not said or said.startswith("uml: "), said


def check_work(world: World, row: Row, done: subprocess.CompletedProcess[bytes]) -> None:
    """It did all of it, and what is to last is there."""
    lines = done.stdout.decode().splitlines()
    assert (done.returncode, lines[-1:]) == (0, ["works"]), (done.stdout, done.stderr)
    if row["mount"] != "none":
        # The numbers of an ordinary user are not among those that are mapped.
        read_only = row["mount"] == "ro" or (row["mount"], row["who"]) == ("map", "ordinary")
        assert "seen" in lines
        assert (world.top / "share/written").exists() is not read_only
    if row["root"] == "tree":
        assert (world.top / "tree/etc/written").exists() is (row["access"] == "rw")
    if row["disk"] not in ("none", "nbd"):
        check_disk(world, row["disk"])


def check_disk(world: World, kind: str) -> None:
    """What was written is in it, and it is what it was."""
    name = {"read-only": "disk.img", "raw": "disk.img", "cow": "disk.cow", "qcow2": "disk.qcow2"}[kind]
    path = world.top / name
    if kind in ("raw", "read-only"):
        with path.open("rb") as file:
            assert file.read(BLOCK) == (b"w" if kind == "raw" else b"\0") * BLOCK
        assert path.stat().st_size == DISK_SIZE
    if kind == "qcow2":
        assert format_of_head(path.read_bytes()[:HEAD]) == "qcow2"
        subprocess.run([needs.program("qemu-img"), "check", "-q", path], check=True)
