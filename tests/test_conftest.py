"""What holds for every test, tried on tests that break it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.host.suite import FAILED_CHECKS, side_by_side

ROOT = Path(__file__).resolve().parent.parent
TESTS = """
import logging, os, subprocess, warnings
import pytest

def test_fine(): logging.getLogger("umlfs.cow").info("fine"); logging.getLogger("other").error("not ours")
def test_logs(): logging.getLogger("umlfs.cow").warning("surprise %d", 7)
@pytest.mark.logs_warnings
def test_logs_as_marked(): logging.getLogger("runtime").error("expected")
def test_warns(): warnings.warn("odd")
def test_leaves_descriptor(): os.open("/dev/null", os.O_RDONLY)
def test_leaves_garbage(): cycle = [open("/dev/null")]; cycle.append(cycle)
def test_leaves_child(): os.spawnlp(os.P_NOWAIT, "true", "true")
async def test_trio(): import trio; await trio.sleep(0)
@pytest.mark.slow
def test_slow(long): assert long
def test_short(long): assert not long
"""


@pytest.fixture
def outcomes(tmp_path: Path) -> Path:
    ours = ("__init__", "conftest", "needs", "ordinary", "real_root")
    for name in ("pyproject.toml", *(f"tests/{each}.py" for each in ours)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    (tmp_path / "tests" / "test_x.py").write_text(TESTS)
    return tmp_path


def pytest_in(directory: Path, *args: str, **environment: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-rA", "-p", "no:cacheprovider", *args],
        cwd=directory,
        env={**os.environ, FAILED_CHECKS: "", "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def test_breaches_fail(outcomes: Path) -> None:
    status, out = pytest_in(outcomes)
    summary = out[out.rindex("short test summary info") :]
    bad = {name for _, name in re.findall(r"^(FAILED|ERROR) \S+::test_(\w+)", summary, re.MULTILINE)}
    assert status == 1
    assert bad == {"logs", "warns", "leaves_descriptor", "leaves_garbage", "leaves_child"}
    assert "test_slow" not in summary
    for says in ("umlfs.cow: surprise 7", "-> /dev/null", "left behind:\nprocess "):
        assert says in re.sub(r"^E +(Failed: )?", "", out, flags=re.MULTILINE)


def test_long_runs_the_slow_ones(outcomes: Path) -> None:
    _, out = pytest_in(outcomes, "--long", "-k", "slow or short")
    assert re.search(r"^PASSED \S+::test_slow$", out, re.MULTILINE)
    assert re.search(r"^FAILED \S+::test_short", out, re.MULTILINE)


def test_a_check_that_failed_before_fails_the_run(outcomes: Path) -> None:
    status, out = pytest_in(outcomes, "-k", "fine", **{FAILED_CHECKS: "mypy --strict"})
    assert status == 1
    assert re.search(r"failed before the tests =+\nmypy --strict\n", out)
    assert re.fullmatch(r"=+ 1 passed, \d+ deselected in .* =+", out.splitlines()[-1])


@pytest.mark.parametrize("arguments", [["-s"], ["--pdb", "-x"], ["tests/cli/test_help.py::test_x"], ["-n4"], ["--co"]])
def test_one_process_where_it_must_be(arguments: list[str]) -> None:
    assert side_by_side(arguments, 2) == []


def test_side_by_side() -> None:
    assert side_by_side(["tests/cli", "-x"], 2) == ["--numprocesses=2", "--dist=loadfile"]
    assert side_by_side([], 64) == ["--numprocesses=4", "--dist=loadfile"]
    assert side_by_side([], 1) == []
