"""The tutorial does what it says: each of its parts is typed, and prints what the page shows."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "tutorial.md"
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
END = "--- end of"
"""Printed after each command, with its number and exit status."""

pytestmark = pytest.mark.guest


@dataclass
class Step:
    """A command, and what it prints."""

    command: str
    output: list[str] = field(default_factory=list)

    @property
    def pattern(self) -> str:
        """What its output must match: `…` is anything, within a line or as lines."""
        return "".join(f"{re.escape(line)}\n" for line in self.output).replace("…\n", "(?s:.*)").replace("…", ".*")


def parts() -> Iterator[object]:
    for title, text in re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.MULTILINE | re.DOTALL):
        steps = [step for block in BLOCK.findall(text) for step in parse(block)]
        if steps:
            yield pytest.param(steps, id=title)


def parse(block: str) -> list[Step]:
    steps: list[Step] = []
    for line in block.splitlines():
        if line.startswith("$ "):
            steps.append(Step(line[2:]))
        elif line.startswith("> "):
            steps[-1].command += "\n" + line[2:]
        else:
            steps[-1].output.append(line)
    return steps


@pytest.mark.parametrize("steps", list(parts()))
def test_what_the_page_shows(steps: list[Step], tmp_path: Path) -> None:
    """One shell types all of a part."""
    script = "".join(f"{step.command}\necho '{END}' {number} $?\n" for number, step in enumerate(steps))
    home = tmp_path / "home"
    home.mkdir()
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "HOME": str(home), "PATH": f"{ROOT}:{os.environ['PATH']}"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    printed = re.split(rf"^{END} \d+ (\d+)\n", done.stdout, flags=re.MULTILINE)
    for number, step in enumerate(steps):
        output, status = printed[2 * number : 2 * number + 2]
        assert re.fullmatch(step.pattern, output), f"{step.command}\nprints (status {status})\n{output}"
