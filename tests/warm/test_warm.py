"""`uml run --warm`: the next command is done in a guest that stands booted, as in one of its own."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guest.caller import Caller, eventually
from tests.guest.conftest import caller as caller
from tests.guest.conftest import me as me

pytestmark = pytest.mark.guest

WARM = "--warm=600"
AGE = "read -r up idle </proc/uptime; read -r id </proc/sys/kernel/random/boot_id; echo $id"


def standing(caller: Caller) -> list[Path]:
    """The sockets of guests that stand."""
    directory = caller.runtime / "umlfs-kept"
    return list(directory.glob("*w"))  # a user's own installation has a suffix of its own


def stand(caller: Caller) -> None:
    assert eventually(lambda: len(standing(caller)) == 1)


@contextlib.contextmanager
def ended(caller: Caller, *options: str) -> Iterator[None]:
    """At the end no guest with these options is to stand any more, and nothing is left."""
    try:
        yield
    finally:
        caller.output("--warm=0", *options, "--", "true")
        assert eventually(lambda: not caller.left())


def test_the_next_command(caller: Caller) -> None:
    """It has its own words, directory, environment, streams and status, sees what was changed on the host since its
    guest was booted, and leaves nothing to the one after it."""
    tree = caller.make("tree", {"old": "old", "gone": "", "etc/one": "1"})
    link = ("--mount", "/mnt=tree")
    with ended(caller, *link):
        first = caller.output(WARM, *link, "--", "sh", "-c", f"ls {tree}/etc {tree}; cat {tree}/old; {AGE}")
        stand(caller)
        socket = standing(caller)
        (tree / "old").write_text("new contents\n")
        (tree / "gone").unlink()
        (tree / "etc/two").write_text("2")
        caller.own(tree)
        script = (
            f"cat {tree}/old; ls {tree} {tree}/etc; touch {tree}/mine /mnt/kept; pwd; echo $A; cat >&2; {AGE}; exit 7"
        )
        done = caller.run(
            "--env", "A=b c", *link, "--pwd", "/usr", "--", "sh", "-c", f"{script}; exit 7", input=b"input"
        )
        assert done.returncode == 7
        assert done.stdout.decode().split()[:11] == [
            *("new", "contents", f"{tree}:", "etc", "old", f"{tree}/etc:", "one", "two", "/usr", "b", "c")
        ]
        assert done.stderr == b"input"
        assert (tree / "kept").exists()
        assert not (tree / "mine").exists()
        assert standing(caller) != socket, "it was not done by the guest that stood"
        stand(caller)
        third = caller.output(*link, "--", "sh", "-c", f"ls {tree}; {AGE}")
        assert "mine" not in third
        assert len({text.split()[-1] for text in (first, done.stdout.decode(), third)}) == 3
        stand(caller)
        kept = standing(caller)
        caller.output("--mem", "128M", *link, "--", "true")
        assert standing(caller) == kept, "it was done by a guest of other options"
        (caller.directory / "tree").rename(caller.directory / "former")
        caller.make("tree", {"another": ""})
        assert caller.output(*link, "--", "ls", "/mnt") == "another\n"
        assert eventually(lambda: standing(caller) not in ([], kept)), "the one that stood is of the past"


def test_side_by_side_signals_and_the_end(me: Caller) -> None:
    """Never two commands in one guest. Signals reach the command; a client that is gone takes its guest with it; the
    time over, nothing is left."""
    me.output("--warm=3", "--", "true")
    stand(me)
    with me.started("--", "sh", "-c", f"{AGE}; exec sleep 100") as one, me.started("--", "sh", "-c", AGE) as other:
        assert one.stdout is not None
        assert other.stdout is not None
        assert one.stdout.readline() != other.stdout.readline()
        assert other.wait() == 0
        one.send_signal(signal.SIGTERM)
        assert one.wait() == 128 + signal.SIGTERM
    me.output("--warm=3", "--", "true")
    stand(me)
    with me.started("--", "sh", "-c", "echo up; exec sleep 100") as one:
        assert one.stdout is not None
        assert one.stdout.readline() == b"up\n"
        one.kill()
    assert eventually(lambda: not me.left())


@pytest.mark.parametrize("words", [("--rw", "--root", "here"), ("--ubd", "ubd0=here"), ("-v",), ("--net",)])
def test_what_cannot_stand(me: Caller, words: tuple[str, ...]) -> None:
    """Asked for on the command line it is an error; as a default of the configuration nothing is kept."""
    me.make("here")
    status, line = me.error("--warm", *words, "--", "true")
    assert status == 2
    assert line.startswith("--warm: no guest can stand with ")
    me.variables["XDG_CONFIG_HOME"] = str(me.directory)
    (me.directory / "umlfs").mkdir()
    (me.directory / "umlfs/config.toml").write_text("[run]\nwarm = 60\n")
    me.run("--dry-run", *words, "--", "true")
    assert me.left() == []
    shown = subprocess.run(me.command("config", "show"), capture_output=True, check=True, text=True)
    assert "warm" in shown.stdout
