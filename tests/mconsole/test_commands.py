"""What the programs do themselves, and the two command lines."""

from __future__ import annotations

import io
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime import cli
from runtime.cli.historical import mconsole
from runtime.mconsole.commands import REQUESTS, log_requests, with_absolute_paths
from runtime.mconsole.interactive import completion
from runtime.mconsole.wire import TEXT_MAX, bytes_of
from tests import needs
from tests.mconsole.machine import Machine, machine
from tests.ordinary import ROOT


@dataclass
class Done:
    """A program's end."""

    status: int
    out: str
    err: str


Program = Callable[..., Done]


def standing_in(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], run: Callable[..., int]) -> Program:
    """Runs a program of ours in this process: its start takes longer than all that it does."""

    def program(*arguments: str, typed: str = "") -> Done:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(typed.encode())))
        with open(os.dup(1), "w") as out:
            monkeypatch.setattr(sys, "stdout", out)
            status = run(list(arguments))
        return Done(status, *capfd.readouterr())

    return program


@pytest.fixture
def uml(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Program:
    """`uml mconsole`."""
    return standing_in(monkeypatch, capfd, lambda arguments: cli.invoke(["mconsole", *arguments]))


@pytest.fixture
def ours(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Program:
    """Our uml_mconsole."""
    return standing_in(monkeypatch, capfd, mconsole.run)


def debians(*arguments: str, typed: str = "") -> Done:
    """The original."""
    command = [str(needs.path("/usr/bin/uml_mconsole")), *arguments]
    done = subprocess.run(command, input=typed, capture_output=True, text=True, timeout=60, check=False)
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """The machine `m` in ~/.uml; the home is the working directory."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with machine(tmp_path / ".uml/m/mconsole") as found:
        (tmp_path / "ends").write_text("one\ntwo\n")
        (tmp_path / "long").write_text("y" * 1200)
        yield found


LINES = [
    "version",
    "  version",
    "fail 1 no such thing",
    "fail -22 Device is already open",
    "pieces",
    "helpme",
    "quit",
    "quitting",
    "mconsole-version",
    "log hello",
    "logs",
    "log",
    "log -f ends",
    "log -f long",
    "log -f missing",
    "log " + "x" * 1200,
    "config ubd0=a,b",
    "config ubd0=ends",
    "config ubd0",
    "config con1=pts",
    "switch m",
    "switch .uml/m/mconsole",
    "umlfs 0",
]


@pytest.mark.interop
@pytest.mark.parametrize("line", LINES, ids=lambda line: line[:20])
def test_historical_single_requests(fake: Machine, ours: Program, line: str) -> None:
    theirs = debians("m", *line.split(" "))
    heard, fake.heard[:] = fake.heard[:], []
    assert ours("m", *line.split(" ")) == theirs
    assert fake.heard == heard


@pytest.mark.interop
@pytest.mark.parametrize("name", [".uml/m/mconsole", "m", "missing", "{home}/.uml/m/mconsole", "/tmp/uml/missing"])
def test_historical_search(fake: Machine, ours: Program, name: str) -> None:
    name = name.format(home=os.environ["HOME"])
    theirs, our = debians(name, "version"), ours(name, "version")
    assert (our.status, our.out) == (theirs.status, theirs.out)
    # It looks for a path in a machine's directory last, and for one without need.
    missed = [line for line in theirs.err.splitlines() if f"{os.environ['HOME']}/.uml//" not in line]
    assert [line for line in our.err.splitlines() if f"{os.environ['HOME']}/.uml//" not in line] == missed


@pytest.mark.interop
def test_historical_usage_and_nobody_there(fake: Machine, ours: Program, tmp_path: Path) -> None:
    assert ours() == debians()
    (tmp_path / "file").touch()
    assert ours("file", "version") == debians("file", "version")
    assert ours("missing", typed="version\nquit\n") == debians("missing", typed="version\nquit\n")


@pytest.mark.interop
@pytest.mark.parametrize(
    "typed",
    [
        "version\nfail 1 no\npieces\nhelp\n\nmconsole-version\nquit\nversion\n",
        "version",
        "switch .uml/m/mconsole\nm: version\nlog hello\n",
    ],
)
def test_historical_prompt(fake: Machine, ours: Program, typed: str) -> None:
    assert ours("m", typed=typed) == debians("m", typed=typed)


def test_historical_long_requests_are_not_cut(fake: Machine, ours: Program) -> None:
    done = ours("m", "config", "ubd0=" + "x" * 600)
    assert (done.status, done.out, fake.heard) == (1, "", [])
    assert "bytes of request, at most 511 fit" in done.err


def test_interrupt(fake: Machine, ours: Program, uml: Program) -> None:
    pid = fake.path.parent / "pid"
    no_pid = "Cannot determine the PID of your UML session, not sending signal."
    for content in ("nonsense", "0", "-1", "1"):
        pid.write_text(content)
        assert ours("m", "int") == Done(0, f"{no_pid}\n", "")
        assert uml("m", "int") == Done(1, "", f"uml: {no_pid}\n")
    with subprocess.Popen(["sleep", "1000"]) as victim:
        pid.write_text(f"{victim.pid}\n")
        assert uml("m", "int") == Done(0, "", "")
        assert victim.wait(60) == -signal.SIGINT


@pytest.mark.parametrize(
    ("words", "done"),
    [
        ("version", Done(0, "version\n", "")),
        ("fail -22 no way", Done(1, "", "uml: no way\n")),
        ("fail 1", Done(1, "", "uml: error 1\n")),
        ("log hello", Done(0, "log hello\nlog\n", "")),
        ("quit", Done(0, "", "")),
        ("mconsole-version", Done(0, "uml_mconsole client version 2\n", "")),
        ("log -f missing", Done(1, "", "uml: missing: No such file or directory\n")),
    ],
)
def test_single_requests(fake: Machine, uml: Program, words: str, done: Done) -> None:
    got = uml("m", *words.split(" "))
    got.out = got.out.replace("log \n", "log\n")
    assert got == done


def test_wrong_usage(fake: Machine, uml: Program) -> None:
    assert uml().status == 2
    assert uml("m", "x" * 512).status == 2
    assert uml("--timeout", "0", "m").status == 2
    missing = uml("missing", "version")
    assert missing.status == 1
    assert missing.err.startswith("uml: missing: no such machine in ")


def test_time_out(fake: Machine, uml: Program) -> None:
    done = uml("--timeout", "0.05", "m", "silence")
    assert (done.status, done.out) == (1, "")
    assert "no answer within 0.05 s" in done.err


def test_prompt(fake: Machine, uml: Program) -> None:
    done = uml("m", typed="version\nswitch missing\nfail 1 no\nswitch .uml/m/mconsole\nversion\nquit\nversion\n")
    assert done.status == 0
    shown = "Switched to '.uml/m/mconsole'\n(.uml/m/mcon) version\nversion\n(.uml/m/mcon) quit\n"
    assert done.out == f"(m) version\nversion\n(m) switch missing\n(m) fail 1 no\n(m) switch .uml/m/mconsole\n{shown}"
    assert done.err.splitlines()[0].startswith("uml: missing: no such machine")
    assert done.err.splitlines()[1:] == ["uml: no"]


def test_prompt_on_a_terminal(fake: Machine) -> None:
    """Completion, history, an interrupted line, and nothing that drives the terminal."""
    terminal, line = pty.openpty()
    command = [sys.executable, "-P", "-c", "from runtime.cli import main; main()", "mconsole", "m"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "dumb"}
    with subprocess.Popen(command, stdin=line, stdout=line, stderr=line, env=environment, start_new_session=True) as us:
        os.close(line)
        for typed, shown in [
            (b"", b"(m) "),
            (b"vers\t\n", b"version\r\n(m) "),
            (b"\x10\n", b"version\r\n(m) "),
            (b"fail 1 \x16\x1b[2J\n", b"\\x1b[2J\r\n(m) "),
            (b"\x04", b""),
        ]:
            os.write(terminal, typed)
            seen = b""
            while shown not in seen:
                seen += os.read(terminal, 4096)
        assert us.wait(60) == 0
    os.close(terminal)
    assert fake.texts == ["version", "version", "fail 1 \x1b[2J"]


def test_completion() -> None:
    complete = completion(REQUESTS)
    assert [complete("st", index) for index in range(4)] == ["stop", "stack ", "stats", None]
    assert complete("xyz", 0) is None


@given(st.binary(max_size=3000))
def test_log_requests_lose_nothing(data: bytes) -> None:
    requests = [bytes_of(text) for text in log_requests(data)]
    assert all(len(text) <= TEXT_MAX and text.startswith(b"log ") for text in requests)
    joined = b"".join(text.removeprefix(b"log ") for text in requests)
    assert joined == (data if data.endswith(b"\n") else data + b"\n").replace(b"\0", b" ")


def test_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path)
    for text, expected in {
        "config ubd0=a": f"config ubd0={tmp_path}/a",
        "config  ubd0r=link/a,b,c": f"config  ubd0r={tmp_path}/real/a,{tmp_path}/b,c",
        "config hostfs1=real": f"config hostfs1={tmp_path}/real",
        "config hostfs1=link/a,b:ro": f"config hostfs1={tmp_path}/real/a,b:ro",
        "snapshot link": f"snapshot {tmp_path}/link",
        "snapshot": "snapshot",
        "config hostfs1=hostfs:real": f"config hostfs1=hostfs:{tmp_path}/real",
        "config ubd0=nowhere/a": "config ubd0=nowhere/a",
        "config ubd0=a,nbd://host/x": f"config ubd0={tmp_path}/a,nbd://host/x",
        "config ubd0": "config ubd0",
        "config con0=fd:1,fd:2": "config con0=fd:1,fd:2",
    }.items():
        assert with_absolute_paths(text) == expected
