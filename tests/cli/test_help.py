"""Every command has a help page with an example, and is described in the documentation."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from runtime.cli import COMMANDS
from runtime.host.suite import checkout


def load(name: str) -> click.Command:
    command: click.Command = importlib.import_module(COMMANDS[name]).command
    return command


def documentation() -> str:
    root = checkout()
    pages: list[Path] = [root / "README.md", *(root / "docs").rglob("*.md")]
    return "\n".join(page.read_text() for page in pages)


@pytest.mark.parametrize("name", COMMANDS)
def test_command_has_help_with_an_example(name: str) -> None:
    command = load(name)
    assert command.name == name
    page = command.help or ""
    assert re.search(rf"^ +(\./)?uml {name}\b", page, re.MULTILINE), f"uml {name} --help shows no example"
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{parameter.opts[0]} of uml {name} has no help"


@pytest.mark.parametrize("name", COMMANDS)
def test_command_is_documented(name: str) -> None:
    assert re.search(rf"`(\./)?uml {name}\b", documentation()), f"no page names `uml {name}`"


def test_the_list_of_commands_loads_nothing_of_what_they_do() -> None:
    code = "import sys; from runtime.cli import COMMANDS, invoke; invoke(['--help']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, check=True, text=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert set(COMMANDS.values()) <= loaded
    ours = {name for name in loaded if name.split(".")[0] in ("umlfs", "hostfs", "humfs", "runtime")}
    small = {"runtime", "runtime.cli", "umlfs", "umlfs.errors"}
    assert {name for name in ours - small if not name.startswith("runtime.cli.")} == set()
    assert not loaded & {"trio", "rich", "sqlite3", "ssl"}
