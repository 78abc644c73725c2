"""More about errors."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import pytest

from runtime.cli import invoke
from runtime.cli.explanations import Explanation, explanation_of, explanations
from runtime.cli.failure import report
from umlfs.errors import UmlError

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("each", explanations(), ids=lambda each: each.code)
def test_our_errors_say_so(each: Explanation) -> None:
    """What a section says that errors contain stands somewhere in the code, or is the system's own word."""
    assert each.says
    assert each.text
    code = "\n".join(
        path.read_text() for name in ("runtime", "umlfs", "hostfs", "humfs") for path in (ROOT / name).rglob("*.py")
    )
    system = {"No space left", "Disk quota exceeded"}
    assert any(said in system or said in code for said in each.says), each.says


def test_codes_are_told_apart() -> None:
    codes = [each.code for each in explanations()]
    assert len(codes) == len(set(codes))
    assert all(re.fullmatch(r"[a-z-]+", code) for code in codes)


def test_by_code_and_by_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["explain", "in-use"]) == 0
    by_code = capsys.readouterr().out
    assert invoke(["explain", "uml: disk.img: in use by another process"]) == 0
    assert capsys.readouterr().out == by_code
    assert "COW file of its own" in by_code


def test_an_unknown_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["explain", "in-uze"]) == 2
    assert capsys.readouterr().err == "uml: in-uze: no such error; did you mean 'in-use'?\n"


def test_a_terminal_is_told_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert report(UmlError("web: no such machine is running", "'uml ps' lists those that run"), False) == 1
    assert terminal.getvalue() == (
        "uml: web: no such machine is running; 'uml ps' lists those that run (uml explain no-machine)\n"
    )


def test_what_is_not_explained() -> None:
    assert explanation_of("tree: not a directory") is None
