from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from runtime import cli
from runtime.host import suite
from umlfs.errors import UmlError


class Became(Exception):
    """The process would have become this program now."""


@pytest.fixture
def became(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What `suite.run` becomes; the directory and the environment are put back after the test."""
    words: list[str] = []

    def execv(program: str, args: list[str]) -> None:
        words.extend(args)
        raise Became

    monkeypatch.setattr(os, "execv", execv)
    monkeypatch.setattr(os, "execvp", execv)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    monkeypatch.setattr(suite, "may_be_root", lambda: False)
    monkeypatch.setenv(suite.FAILED_CHECKS, "")
    monkeypatch.setenv("PATH", "/usr/bin")
    monkeypatch.chdir(Path.cwd())
    return words


def checks(**status: int) -> dict[str, list[str]]:
    return {name: ["this", "--version"] if not code else ["no_such_module"] for name, code in status.items()}


@pytest.mark.parametrize(("status", "failed"), [({"a": 0, "b": 0}, ""), ({"a": 1, "b": 0, "c": 1}, "a, c")])
def test_failed_checks_do_not_keep_the_tests_from_running(
    monkeypatch: pytest.MonkeyPatch, became: list[str], status: dict[str, int], failed: str
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: True)
    monkeypatch.setattr(suite, "_checks", lambda keeps: checks(**status))
    with pytest.raises(Became):
        suite.run(["-k", "x"])
    assert became == [sys.executable, "-m", "pytest", "-k", "x"]
    assert os.environ[suite.FAILED_CHECKS] == failed
    assert os.environ["PATH"] == "/usr/bin:/usr/sbin:/sbin"
    assert Path.cwd() == suite.checkout()


def test_a_checkout_that_may_not_be_written_gets_no_caches(monkeypatch: pytest.MonkeyPatch, became: list[str]) -> None:
    asked: list[tuple[str, ...]] = []

    def passes(name: str, command: Sequence[str]) -> bool:
        asked.append(tuple(command))
        return True

    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.setattr(suite, "_passes", passes)
    with pytest.raises(Became):
        suite.run([])
    assert len(asked) == 3
    assert all("--no-cache" in command or "/dev/null" in command for command in asked)
    assert became[3:] == ["-p", "no:cacheprovider"]


def test_outside_a_checkout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(suite, "__file__", str(tmp_path / "runtime" / "host" / "suite.py"))
    with pytest.raises(UmlError, match=r"no tests here; clone the project and run \./uml test in it"):
        suite.checkout()


def test_the_command_hands_everything_to_pytest(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[str] = []
    monkeypatch.setattr("runtime.host.suite.run", lambda words, style: given.extend([*words, str(style)]))
    assert cli.invoke(["test", "--long", "-x", "tests/cli", "-k", "a b", "--", "c"]) == 0
    assert given == ["--long", "-x", "tests/cli", "-k", "a b", "c", "True"]


@pytest.mark.parametrize("words", [["-k", "x"], ["-p", "no:cacheprovider"], ["-pno:cacheprovider"]])
def test_an_ordinary_user_who_may_use_sudo(
    words: list[str], monkeypatch: pytest.MonkeyPatch, became: list[str]
) -> None:
    monkeypatch.setattr(suite, "may_be_root", lambda: True)
    monkeypatch.setattr(suite, "_passes", lambda name, command: True)
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(Became):
        suite.run(words)
    assert became[:3] == ["sudo", "-H", "env"]
    assert {"CI=true", f"{suite.FAILED_CHECKS}="} <= set(became)
    assert not any(word.startswith("HOME=") for word in became)
    command = became[became.index(sys.executable) :]
    cache = ["-o", f"cache_dir={suite.ROOTS_CACHE}/pytest"] if words == ["-k", "x"] else []
    assert command == [sys.executable, "-m", "pytest", *cache, *words]


def test_what_failed_before_is_named_too(monkeypatch: pytest.MonkeyPatch, became: list[str]) -> None:
    monkeypatch.setenv(suite.FAILED_CHECKS, "guests on Linux 9.9")
    monkeypatch.setattr(suite, "_checks", lambda keeps: checks(a=1))
    with pytest.raises(Became):
        suite.run([])
    assert os.environ[suite.FAILED_CHECKS] == "guests on Linux 9.9, a"
    with pytest.raises(Became):
        suite.run([], style=False)
    assert os.environ[suite.FAILED_CHECKS] == "guests on Linux 9.9, a"


UML = """#!/bin/sh
# Plays ./uml: the archive of the suite $BROKEN cannot be reached, tests on the kernel of $FAILING fail.
case "$*" in
"kernel install $BROKEN") echo "uml: no such suite" >&2; exit 1 ;;
"kernel install "*) echo "Linux-$3: installed, 1 MB in /x" ;;
"test --kernel Linux-$FAILING "*) echo "1 failed"; exit 1 ;;
"test --reruns 1 "*) echo "the suite <$UML_TEST_FAILED_CHECKS>"; [ -z "$UML_TEST_FAILED_CHECKS" ] ;;
esac
"""


@pytest.mark.parametrize(
    ("broken", "failing", "named"),
    [
        ("", "", ""),
        ("testing", "", "uml kernel install testing"),
        ("", "stable", "guests on Linux Linux-stable"),
        ("stable", "testing", "uml kernel install stable, guests on Linux Linux-testing"),
    ],
)
def test_ci_runs_every_stage(tmp_path: Path, broken: str, failing: str, named: str) -> None:
    """It fails if any does, and the suite's closing line is the last one."""
    (tmp_path / ".ci").mkdir()
    shutil.copy(suite.checkout() / ".ci/run", tmp_path / ".ci/run")
    (tmp_path / "uml").write_text(UML)
    (tmp_path / "uml").chmod(0o755)
    done = subprocess.run(
        [tmp_path / ".ci/run"],
        env={"PATH": os.defpath, "BROKEN": broken or "-", "FAILING": failing or "-"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines()[-1] == f"the suite <{named}>"
    assert done.returncode == bool(named)
