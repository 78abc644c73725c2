"""What configuration files say, as defaults of a command's options."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

import click

from runtime.host.configuration import NAMED, Setting, Settings
from umlfs.errors import UsageError


def defaults_of(name: str, command: click.Command, found: Settings) -> dict[str, Any]:
    """The default map of the command called `name`, with those of its own commands. UsageError."""
    values = {_parameter(command, name, key, each): each.value for key, each in found.get(name, {}).items()}
    if isinstance(command, click.Group):
        for each, child in command.commands.items():
            values[each] = defaults_of(f"{name} {each}", child, found)
    return values


def _parameter(command: click.Command, name: str, key: str, setting: Setting) -> str:
    """The parameter that the option `--key` sets, if it takes such a value."""
    options = {word[2:]: each for each in command.params for word in each.opts if word.startswith("--")}
    option = options.get(key)
    if option is None or option.name is None:
        near = get_close_matches(key, options, n=1)
        way_out = f"did you mean '{near[0]}'?" if near else f"'uml {name} --help' lists its options"
        raise UsageError(f"{setting.file}: uml {name} has no option --{key}", way_out)
    many = option.multiple if isinstance(option, click.Option) else False
    flag = isinstance(option, click.Option) and option.is_flag
    if many != isinstance(setting.value, list) or flag != isinstance(setting.value, bool):
        kind = "a list" if many else "true or false" if flag else "one value"
        raise UsageError(f"{setting.file}: '{key}' of uml {name} takes {kind}", "see docs/configuration.md")
    return option.name


def check_tables(found: Settings, commands: Any) -> None:
    """UsageError for a table that is of no command."""
    for table, values in found.items():
        if table.split(" ")[0] not in commands and table not in NAMED.values():
            file = next(iter(values.values())).file if values else "the configuration"
            raise UsageError(f"{file}: [{table}] is no command", "'uml --help' lists them")
