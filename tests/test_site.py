"""The documentation as a site, what stands beside it, and commands that it names."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml

from runtime.cli import COMMANDS
from runtime.cli.group import uml
from tests.ordinary import ROOT


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert (tmp_path / "site" / "web" / "index.html").is_file()


@pytest.mark.parametrize("name", ["github", "gitlab"])
def test_ci_examples_are_yaml_that_runs_uml(name: str) -> None:
    text = (ROOT / "docs" / "ci" / f"{name}.yml").read_text()
    assert isinstance(yaml.safe_load(text), dict)
    assert "/opt/umlfs/bin/uml run --mount /src=. --mem 512M --" in text


def named() -> list[str]:
    """The commands that the comparison with other tools has on its right."""
    text = (ROOT / "docs" / "coming-from.md").read_text()
    rows = [line.split(" | ")[1] for line in text.splitlines() if line.startswith("| `")]
    return [word for row in rows for word in re.findall(r"`(uml [^`]*)`", row)]


@pytest.mark.parametrize("line", named())
def test_commands_of_the_comparison_exist_with_their_options(line: str) -> None:
    words = line.split()[1:]
    command = uml.get_command(click.Context(uml), words[0])
    assert words[0] in COMMANDS
    assert command is not None
    if isinstance(command, click.Group) and len(words) > 1:
        assert words[1] in command.commands
        command = command.commands[words[1]]
    known = {option for each in command.params for option in (*each.opts, *each.secondary_opts)}
    until = words.index("--") if "--" in words else len(words)
    assert {word for word in words[:until] if word.startswith("-")} <= known
