"""Every command with every wrong thing where a file is expected: one line that says why, and nothing is left behind."""

from __future__ import annotations

import json
import os
import re
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.ordinary import ROOT

WRONG: Final = (
    *("missing", "empty", "noise", "text", "directory", "fifo", "socket", "device", "loop", "dangling", "long"),
    *("comma", "newline", "no word", "unknown kind", "no qcow2", "no cow", "no humfs", "unreachable"),
)
"""What is wrong, by the name of the file that has it."""
COMMANDS: Final = (
    *("run --dry-run --root @ -- true", "run --dry-run --mount /m=@ -- true", "run --dry-run --ubd ubd0=@ -- true"),
    *(
        "run --dry-run --ubd ubd0=@,@ -- true",
        "run --dry-run --kernel @ -- true",
        "run --dry-run --ubd ubd0=new,@ -- true",
    ),
    *("ls @", "ls -l @:/x", "cat @:/x", "cp @:/x out", "find @", "df @", "diff @ @", "stat @", "tree @"),
    *("cow info @", "cow map @", "cow check @", "cow create new @", "cow merge @ new", "cow rebase @ @"),
    *("humfs info @", "humfs check @", "humfs export @ new.tar", "humfs import @ @", "humfs stat @ x"),
    *("image info @", "image convert @ new.img", "image resize @ 8M", "image compact @"),
    *("mount @ file", "mount . @/x", "umount @", "serve nbd @ --socket s", "serve virtiofs @ --socket s"),
    *("boot -d @.toml", "exec @ true", "halt @", "console @", "mconsole @ version", "kernel info @"),
)
SECONDS: Final = 60
OUTPUTS: Final = frozenset({"new", "new.img", "new.tar", "out"})
ENDED: Final = 143
"""Of one that works until it is told to end."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory with everything wrong in it."""
    top = tmp_path_factory.mktemp("wrong")
    (top / "empty").touch()
    (top / "noise").write_bytes(bytes(range(1, 256)) * 64)
    (top / "text").write_text("[Unit]\nNothing of ours.\n" * 100)
    (top / "directory").mkdir()
    (top / "file").touch()
    os.mkfifo(top / "fifo")
    os.mknod(top / "device", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    (top / "loop").symlink_to("loop")
    (top / "dangling").symlink_to("nowhere")
    (top / "no qcow2").write_bytes(b"QFI\xfb\0\0\0\3" + bytes(range(200)))
    (top / "no cow").write_bytes(b"OOOM\0\0\0\3" + b"\xff" * 5000)
    (top / "no humfs").mkdir()
    (top / "no humfs/superblock").write_text("version 2\nmetadata shadow_fs\n")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(top / "socket"))
        yield top


WORDS: Final = {
    "long": "x" * 5000,
    "comma": "a,b",
    "newline": "new\nline",
    "no word": "",
    "unknown kind": "madeup:x",
    "unreachable": "nbd+unix:///?socket=nowhere",
}


def line(command: str, wrong: str) -> list[str]:
    word = WORDS.get(wrong, wrong)
    return [part.replace("@", word) for part in command.split(" ")]


def selected() -> list[object]:
    """Every other command with a third of what can be wrong, another one each time; --long has the rest."""
    found: list[object] = []
    for number, command in enumerate(COMMANDS):
        for part in range(3):
            marks = () if part == number % 3 and number % 2 == 0 else (pytest.mark.slow,)
            found.append(pytest.param(command, WRONG[part::3], id=f"{command}-{part}", marks=marks))
    return found


@pytest.mark.parametrize(("command", "wrong"), selected())
def test_one_line_that_says_why(command: str, wrong: Sequence[str], place: Path) -> None:
    """What works nevertheless has no complaint. Nothing is left but the output of such."""
    before = listing(place)
    for each, done in zip(wrong, results([line(command, each) for each in wrong], place), strict=True):
        complaint = f"{command!r} with {each}: {done.status} {done.errors[-500:]!r}"
        assert not re.search("Traceback|internal error|panic", done.errors), complaint
        assert done.status in (0, 1, 2, 125, ENDED), complaint
        if done.status not in (0, ENDED):
            assert done.errors.rstrip("\n").rpartition("\n")[2].startswith("uml: "), complaint
        assert listing(place) - before <= OUTPUTS, complaint
    for name in listing(place) - before:
        subprocess.run(["rm", "-rf", place / name], check=True)


@dataclass(frozen=True)
class Result:
    """What came of a command."""

    status: int
    output: str
    errors: str


def results(lines: Sequence[list[str]], place: Path) -> list[Result]:
    """Run `uml` with each of the lines, one after the other, in `place`."""
    variables = {"HOME": str(place), "XDG_RUNTIME_DIR": str(place), "PYTHONPATH": str(ROOT), "LANG": "C.UTF-8"}
    environment = {"PATH": os.environ["PATH"], "XDG_CACHE_HOME": os.path.expanduser("~/.cache"), **variables}
    done = subprocess.run(
        [sys.executable, "-P", Path(__file__).with_name("forker.py")],
        cwd=place,
        env=environment,
        input=json.dumps(lines),
        text=True,
        capture_output=True,
        timeout=SECONDS * len(lines),
        check=True,
    )
    return [Result(*each) for each in json.loads(done.stdout)]


def listing(place: Path) -> set[str]:
    return {entry.name for entry in place.iterdir()}
