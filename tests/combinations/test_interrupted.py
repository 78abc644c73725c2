"""Ctrl-C and SIGKILL after a random time: no traceback, nothing of a machine is left, and the same command works."""

from __future__ import annotations

import random
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Final

import pytest

from tests import needs
from tests.combinations.world import World
from tests.guest.caller import BOUND, caller_as, eventually
from tests.ordinary import OrdinaryUser

pytestmark = pytest.mark.guest

COMMANDS: Final = {
    "run": "run --mem 96M -- true",
    "run on an image": "run --mem 96M --root cow:root.cow --rw -- sh -c 'echo guest >/etc/written'",
    "run with mounts": "run --mem 96M --root humfs:tree.humfs --mount /there=share --ubd ubd0=disk.qcow2 -- true",
    "run with a network": "run --mem 96M --net user -- true",
    "ls": "ls raw:root.img:/",
    "cat": "cat root.qcow2:/etc/mark",
    "cp": "cp tree/etc/mark root.img:/etc/new",
    "edit": "chmod 600 root.img:/etc/mark",
    "convert": "image convert root.img new.qcow2",
    "convert a tree": "image convert tree new.img",
    "to a humfs": "image convert tree humfs:new.humfs",
    "cow": "cow create new.cow base.img",
    "merge": "cow merge disk.cow new.img",
}
OUTPUTS: Final = ("new.qcow2", "new.img", "new.humfs", "new.cow")
SIGNALS: Final = {"Ctrl-C": signal.SIGINT, "SIGKILL": signal.SIGKILL}
SECONDS: Final = 1.5
"""Until the signal, at most."""


@pytest.fixture(scope="module")
def worlds(callers: Mapping[str, OrdinaryUser | None]) -> Iterator[dict[str, World]]:
    """One of root's and one of an ordinary user's."""
    with ExitStack() as stack:
        found = {}
        for who, whose in callers.items():
            found[who] = World(stack.enter_context(caller_as(whose)))
            found[who].make()
        yield found


def selected() -> list[object]:
    """Each command with either signal: CI has a few."""
    found: list[object] = []
    for number, (name, which) in enumerate((name, which) for name in COMMANDS for which in SIGNALS):
        marks = () if number % 9 == 1 else (pytest.mark.slow,)
        found.append(pytest.param(name, which, id=f"{name}-{which}", marks=marks))
    return found


@pytest.mark.parametrize(("name", "which"), selected())
def test_a_command(name: str, which: str, worlds: dict[str, World], long: bool) -> None:
    moments = random.Random(f"{name} {which}")
    for who in ("root", "ordinary") if long else ("ordinary",):
        for _ in range(4 if long else 1):
            ended_early(worlds[who], name, SIGNALS[which], moments.uniform(0, SECONDS))


def ended_early(world: World, name: str, which: signal.Signals, moment: float) -> None:
    remove_outputs(world)
    before = {path.name for path in world.top.iterdir()}
    words = command(world, COMMANDS[name])
    with subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    ) as process:
        time.sleep(moment)
        process.send_signal(which)
        said = process.communicate(timeout=BOUND)[1].decode(errors="replace")
    where = f"{name} after {moment:.3f} s: {process.returncode} {said}"
    assert not re.search("Traceback|internal error|panic", said), where
    assert process.returncode in (0, 130, -which), where
    assert eventually(lambda: not processes(world)), where
    if which == signal.SIGINT:
        assert eventually(lambda: not world.caller.left()), where
        left = {path.name for path in world.top.iterdir()} - before
        assert left <= (set(OUTPUTS) if process.returncode == 0 else set()), where
    again(world, words, where)


def command(world: World, words: str) -> list[str]:
    """`uml WORDS`, started as `./uml` does it: with Ctrl-C held back while Python starts."""
    *before, python, isolated, option, _ = world.caller.command()
    program = [python, isolated, option, "from umlfs.entry import uml; uml()"]
    return [*before, "env", "--block-signal=INT", *program, *shlex.split(words)]


def again(world: World, words: Sequence[str], where: str) -> None:
    """The same once more, to its end, over what an end without warning may have left of a new file."""
    remove_outputs(world)
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=BOUND, check=False)
    assert done.returncode == 0, f"{where}; then {done.stderr.decode()}"
    for image in ("root.img", "base.root.img"):
        command: list[object] = [needs.program("e2fsck"), "-fn", world.top / image]
        checked = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
        assert checked.returncode == 0, f"{where}: {checked.stdout}"
    subprocess.run([needs.program("qemu-img"), "check", "-q", world.top / "disk.qcow2"], check=True)


def processes(world: World) -> list[str]:
    return [each for each in world.caller.left() if each.startswith("process")]


def remove_outputs(world: World) -> None:
    for output in OUTPUTS:
        path = world.top / output
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
