"""What is shown of long work."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from runtime.cli import invoke
from runtime.cli import progress as module
from runtime.cli.progress import KEY, activity, counter, progress_bar, progress_option


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, in its only element."""
    now = [0.0]
    monkeypatch.setattr(module, "now", lambda: now[0])
    monkeypatch.setenv("TERM", "xterm")
    return now


def test_a_terminal_sees_what_takes_long(monkeypatch: pytest.MonkeyPatch, clock: list[float]) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with activity("copy", after=1.0) as show:
        clock[0] = 0.9
        show.text("1 file")
        assert terminal.getvalue() == ""
        clock[0] = 1.1
        show.text("[2] files\x1b")
    assert "copy: [2] files\\x1b" in terminal.getvalue()
    assert "1 file" not in terminal.getvalue()


def test_a_terminal_sees_what_is_long_from_the_start(monkeypatch: pytest.MonkeyPatch, clock: list[float]) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with activity("convert"):
        pass
    assert "convert" in terminal.getvalue()


def test_a_pipe_sees_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = io.StringIO()
    monkeypatch.setattr(sys, "stderr", pipe)
    with activity("convert") as show:
        show.count(1, "files")
    assert pipe.getvalue() == ""


def invoked(*args: str) -> list[str]:
    """The lines on standard error of a command that copies 3 MiB of 4, with `args`."""

    @click.command()
    @progress_option
    def command() -> None:
        with progress_bar("merge") as tell:
            tell(1 << 20, 4 << 20)
            tell(3 << 20, 4 << 20)
        with progress_bar("compile", "files") as tell:
            tell(1, 2)
        with activity("copy") as show:
            show.count(7, "files")

    done = CliRunner().invoke(command, args)
    assert done.exit_code == 0
    return done.stderr.splitlines()


def test_lines_where_asked_for() -> None:
    """The last of each is always told."""
    assert invoked("--progress=plain") == [
        "merge: 3.0 MiB of 4.0 MiB, 75 %",
        "compile: 1 of 2 files, 50 %",
        "copy: 7 files",
    ]


def test_json_where_asked_for() -> None:
    found = [json.loads(line) for line in invoked("--progress=json")]
    assert found == [
        {"event": "progress", "title": "merge", "done": 3 << 20, "total": 4 << 20, "unit": "bytes"},
        {"event": "progress", "title": "compile", "done": 1, "total": 2, "unit": "files"},
        {"event": "progress", "title": "copy", "done": 7, "unit": "files"},
    ]


@pytest.mark.parametrize("args", [[], ["--progress=none"], ["--progress=auto"]])
def test_nothing_else_on_a_pipe(args: list[str]) -> None:
    assert invoked(*args) == []


def test_lines_do_not_come_thicker_than_one_a_second(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with click.Context(click.Command("x")) as ctx:
        ctx.meta[KEY] = "plain"
        with counter("check", "names") as tell:
            for step in range(30):
                clock[0] = step / 10
                tell(step)
    assert capsys.readouterr().err.splitlines() == ["check: 10 names", "check: 20 names", "check: 29 names"]


def test_a_real_merge_tells(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    backing, cow = tmp_path / "image", tmp_path / "cow"
    backing.write_bytes(bytes(1 << 20))
    assert invoke(["cow", "create", str(cow), str(backing)]) == 0
    capsys.readouterr()
    assert invoke(["cow", "merge", "--progress=json", str(cow), str(tmp_path / "new")]) == 0
    told = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(each["done"], each["total"]) for each in told] == [(1 << 20, 1 << 20)]
