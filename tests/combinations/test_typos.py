"""A letter that is missing in a command or an option: one line that names the word and what was meant."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from runtime.cli import COMMANDS, invoke

HANDS_ON: tuple[str, ...] = ("test",)
"""Commands whose options are those of another program."""


def commands() -> Iterator[tuple[list[str], click.Command]]:
    """Every command and subcommand, with the words that name it."""
    for name, module in COMMANDS.items():
        if name not in HANDS_ON:
            yield from below([name], importlib.import_module(module).command)


def below(words: list[str], command: click.Command) -> Iterator[tuple[list[str], click.Command]]:
    yield words, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from below([*words, name], inner)


def typos() -> Iterator[tuple[list[str], str]]:
    """Words of a command with something wrong in the last, and what that is in truth."""
    for words, command in commands():
        if len(words[-1]) > 3:
            yield [*words[:-1], without_one(words[-1])], words[-1]
        for option in command.params:
            for name in option.opts if isinstance(option, click.Option) else ():
                if len(name) > 5 and name.startswith("--"):
                    yield [*words, without_one(name)], name


def without_one(word: str) -> str:
    """The word without the letter before its last."""
    return word[:-2] + word[-1]


def test_every_command_and_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    wrong = []
    number = 0
    for words, meant in typos():
        number += 1
        status = invoke(words)
        out, err = capsys.readouterr()
        if status not in (2, 125) or out or err.count("\n") != 1 or words[-1] not in err or meant not in err:
            wrong.append((words, meant, status, out, err))
    assert number > 300
    assert not wrong
    assert list(tmp_path.iterdir()) == []
