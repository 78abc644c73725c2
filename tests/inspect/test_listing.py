"""Options of `uml ls` that are those of ls(1): the same files, in the same order and with the same sizes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.inspect.fields import human_size
from tests.ordinary import ROOT

SIZES = (0, 1, 999, 1000, 1023, 1024, 1025, 10239, 10240, 10241, 1 << 20, (1 << 20) - 1, 123456789, 1 << 40)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of all those sizes, each a day older than the one before."""
    top = tmp_path_factory.mktemp("files")
    for number, size in enumerate(SIZES):
        path = top / f"{number * 7 % len(SIZES):02}"
        path.touch()
        os.truncate(path, size)
        os.utime(path, (1_000_000_000, 1_700_000_000 - number * 86400))
    return top


def said(command: list[str]) -> list[list[str]]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "LC_ALL": "C"}
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env=environment, stdin=subprocess.DEVNULL
    )
    return [line.split() for line in done.stdout.splitlines()]


@pytest.mark.parametrize("options", ["-1t", "-1S", "-1r", "-1tr", "-1Sr", "-1"])
def test_order(options: str, files: Path) -> None:
    program = [sys.executable, "-P", "-c", "from runtime.cli import main; main()"]
    assert said([*program, "ls", options, str(files)]) == said(["ls", options, str(files)])


def test_sizes(files: Path) -> None:
    shown = {words[-1]: words[4] for words in said(["ls", "-lh", str(files)])[1:]}
    assert {path.name: human_size(path.stat().st_size) for path in files.iterdir()} == shown
