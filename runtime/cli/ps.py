"""`uml ps`: the machines that run."""

from __future__ import annotations

import json

import click

from runtime.cli.printing import printable

_ENDLESS = 1 << 14
"""The width of what is no terminal: a line for each machine, whatever is in it."""


@click.command("ps")
@click.option("--json", "as_json", is_flag=True, help="List them as JSON.")
@click.option("--uml-dir", metavar="DIR", help="Where their directories are.  [~/.uml]")
def command(as_json: bool, uml_dir: str | None) -> None:
    """List the machines of this user that run.

    MEMORY is what the kernel takes of this host's, and what the guest has; CPU is the time of processors that it has
    used.

    \b
    Example:
      uml ps
      uml ps --json | jq -r '.[].umid'
    """
    from dataclasses import asdict

    import trio

    from runtime.machines.directory import machines_directory
    from runtime.machines.listing import HEADINGS, listing

    found = trio.run(listing, machines_directory(uml_dir))
    if as_json:
        click.echo(json.dumps([asdict(each) for each in found], indent=2))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*HEADINGS, box=None, pad_edge=False)
    for each in found:
        table.add_row(*(Text(printable(cell), overflow="fold") for cell in each.cells()))
    Console(width=None if Console().is_terminal else _ENDLESS).print(table)
