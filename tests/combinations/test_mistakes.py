"""Every command with every wrong thing where a file is expected: one line that says why, and nothing is left behind."""

from __future__ import annotations

import json
import os
import re
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.ordinary import ROOT, OrdinaryUser

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
NAMES_ONLY: Final = frozenset({"exec", "halt", "console", "mconsole", "umount", "boot"})
"""Commands whose word names no file to open."""
SECONDS: Final = 60
OUTPUTS: Final = frozenset({".cache", "new", "new.img", "new.tar", "out"})
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


@pytest.fixture(scope="module")
def closed(user: OrdinaryUser) -> Iterator[Path]:
    """An ordinary user's directory with what they may not read."""
    with tempfile.TemporaryDirectory(prefix="uml-", dir="/tmp") as text:
        top = Path(text)
        (top / "closed").write_bytes(bytes(1 << 20))
        (top / "shut/inner").mkdir(parents=True)
        (top / "file").touch()
        for path in (top, *top.rglob("*")):
            os.chown(path, user.uid, user.gid)
        (top / "closed").chmod(0)
        (top / "shut").chmod(0)
        yield top
        (top / "shut").chmod(0o700)


@pytest.mark.parametrize(
    "part", [pytest.param(part, marks=() if part == 1 else (pytest.mark.slow,)) for part in range(8)]
)
def test_no_right(part: int, closed: Path, user: OrdinaryUser) -> None:
    """What the caller may not open is not said to be absent."""
    lines = [line(command, wrong) for command in COMMANDS[part::8] for wrong in ("closed", "shut/inner", "shut")]
    before = listing(closed)
    for words, done in zip(lines, results(lines, closed, user), strict=True):
        complaint = f"{words} {done.status} {done.errors[-500:]!r}"
        assert not re.search("Traceback|internal error|panic", done.errors), complaint
        assert done.status in (1, 2, 125), complaint
        last = done.errors.rstrip("\n").rpartition("\n")[2]
        assert last.startswith("uml: "), complaint
        if words[0] not in NAMES_ONLY and words[-1] != "closed/x":
            assert not re.search("no such|not exist", last, re.IGNORECASE), complaint
        assert listing(closed) - before <= OUTPUTS, complaint


@dataclass(frozen=True)
class Result:
    """What came of a command."""

    status: int
    output: str
    errors: str


def results(lines: Sequence[list[str]], place: Path, user: OrdinaryUser | None = None) -> list[Result]:
    """Run `uml` with each of the lines, one after the other, in `place`, as we are or as an ordinary user."""
    forker = Path(__file__).with_name("forker.py")
    variables = {"HOME": str(place), "XDG_RUNTIME_DIR": str(place), "LANG": "C.UTF-8"}
    environment = {"PATH": os.environ["PATH"], "XDG_CACHE_HOME": os.path.expanduser("~/.cache")}
    environment |= {"PYTHONPATH": str(ROOT), **variables}
    command = [sys.executable, "-P", str(forker)]
    if user is not None:
        path = f"PYTHONPATH={':'.join(map(str, user.path))}"
        words = [f"{name}={value}" for name, value in variables.items()]
        command = user.command("env", "-C", place, *words, path, user.python, "-P", "-c", forker.read_text())
    done = subprocess.run(
        command,
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
