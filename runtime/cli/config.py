"""`uml config`: what holds by default, and from where."""

from __future__ import annotations

import json

import click

from runtime.cli.printing import print_table


@click.group("config")
def command() -> None:
    """Defaults for options, and names for machines and mounts, kept in files.

    \b
    Example:
      uml config show
      uml config path
    """


@command.command("path")
def path_() -> None:
    """Say where your own file is, or would be.

    \b
    Example:
      $EDITOR "$(uml config path)"
    """
    from runtime.host.configuration import user_file

    click.echo(user_file())


@command.command("show")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for a program to read.")
def show_(as_json: bool) -> None:
    """Show all that is set, and in which file. An error in a file is told here, whatever command it is for.

    \b
    Example:
      uml config show
    """
    from runtime.cli import COMMANDS
    from runtime.cli.defaults import check_tables, defaults_of
    from runtime.cli.group import uml
    from runtime.host.configuration import settings

    found = settings()
    check_tables(found, COMMANDS)
    context = click.get_current_context()
    for name in sorted({table.split(" ")[0] for table in found}):
        if (each := uml.get_command(context, name)) is not None:
            defaults_of(name, each, found)
    listed = [(table, key, each) for table, values in sorted(found.items()) for key, each in sorted(values.items())]
    if as_json:
        rows = [
            {"command": table, "option": key, "value": each.value, "file": str(each.file)}
            for table, key, each in listed
        ]
        click.echo(json.dumps(rows, indent=2))
        return
    print_table(
        ("COMMAND", "OPTION", "VALUE", "FROM"),
        [(table, key, json.dumps(each.value), str(each.file)) for table, key, each in listed],
    )
