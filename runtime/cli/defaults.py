"""What configuration files say, as defaults of a command's options."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

import click

from runtime.cli.file_places import change_of, words_placed
from runtime.host.configuration import COMPARTMENTS, NAMED, Setting, Settings
from umlfs.errors import UsageError
from umlfs.sources.places import from_directory


def defaults_of(name: str, command: click.Command, found: Settings) -> dict[str, Any]:
    """The default map of the command called `name`, with those of its own commands. UsageError."""
    values: dict[str, Any] = {}
    for key, setting in found.get(name, {}).items():
        option = _parameter(command, name, key, setting)
        values[str(option.name)] = _placed(option, setting)
    if isinstance(command, click.Group):
        for each, child in command.commands.items():
            values[each] = defaults_of(f"{name} {each}", child, found)
    return values


def _placed(option: click.Parameter, setting: Setting) -> Any:
    """The value, with the paths in it from the place of the file."""
    change, place = change_of(option), from_directory(str(setting.file.parent))
    if change is None:
        return setting.value
    if isinstance(setting.value, list):
        return [change(each, place) if isinstance(each, str) else each for each in setting.value]
    return change(setting.value, place) if isinstance(setting.value, str) else setting.value


def named_words(name: str, command: click.Command, found: Settings) -> Settings:
    """`found`, with the paths in what names of machines and mounts stand for from the places of their files."""
    table = NAMED.get(name, "")
    if not found.get(table):
        return found
    return {**found, table: {key: _words_placed(each, command) for key, each in found[table].items()}}


def _words_placed(setting: Setting, command: click.Command) -> Setting:
    if not isinstance(setting.value, list) or not all(isinstance(each, str) for each in setting.value):
        return setting
    place = from_directory(str(setting.file.parent))
    return Setting(words_placed(setting.value, command, place), setting.file)


def _parameter(command: click.Command, name: str, key: str, setting: Setting) -> click.Parameter:
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
    return option


def check_tables(found: Settings, commands: Any) -> None:
    """UsageError for a table that is of no command."""
    for table, values in found.items():
        if table.split(" ")[0] not in commands and table not in (*NAMED.values(), COMPARTMENTS):
            file = next(iter(values.values())).file if values else "the configuration"
            raise UsageError(f"{file}: [{table}] is no command", "'uml --help' lists them")
