"""`uml ps`: the machines that run, and those that have ended."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from runtime.cli.printing import printable

if TYPE_CHECKING:
    from rich.table import Table


@click.command("ps")
@click.option("-a", "--all", "with_ended", is_flag=True, help="Those that have ended, too.")
@click.option("-w", "--watch", is_flag=True, help="Look again and again, until interrupted.")
@click.option("-d", "--delay", default=2.0, type=click.FloatRange(min=0.2), help="Seconds between looks.  [2]")
@click.option("--json", "as_json", is_flag=True, help="List them as JSON.")
@click.option("--uml-dir", metavar="DIR", help="Where their directories are.  [~/.uml]")
@click.argument("umid", required=False)
def command(with_ended: bool, watch: bool, delay: float, as_json: bool, uml_dir: str | None, umid: str | None) -> None:
    """List the machines of this user that run; with UMID that one, and where its consoles are.

    MEMORY is what the kernel takes of this host's, and what the guest has; CPU is the time of processors that it has
    used. With -a those that have ended come last, with the kernel's exit status and the last line of their log:
    'uml logs' shows all of it, and 'uml rm' forgets them.

    \b
    Example:
      uml ps
      uml ps -a
      uml ps --watch
      uml ps --json | jq -r '.[].umid'
    """
    from runtime.machines.directory import machines_directory

    machines = machines_directory(uml_dir)
    if watch and as_json:
        raise click.UsageError("--watch is for a person, and --json is not")
    if watch:
        from runtime.cli.live import show

        show(lambda: _look(machines, with_ended, umid), delay)
    elif as_json:
        click.echo(json.dumps(_messages(machines, with_ended, umid), indent=2))
    else:
        _show(machines, with_ended, umid)


def _messages(machines: Path, with_ended: bool, umid: str | None) -> list[dict[str, object]]:
    from dataclasses import asdict

    import trio

    from runtime.machines.ended import all_ended
    from runtime.machines.listing import listing

    running = [asdict(each) for each in trio.run(listing, machines)]
    ended = [{"state": "ended", **asdict(each)} for each in all_ended(machines)] if with_ended else []
    return [each for each in (*running, *ended) if umid in (None, each["umid"])]


def _show(machines: Path, with_ended: bool, umid: str | None) -> None:
    import trio

    from runtime.cli.printing import print_once

    print_once(trio.run(_look, machines, with_ended, umid))
    for line, place in trio.run(_lines_of, machines, umid).items():
        click.echo(printable(f"{line}  {place}"))


async def _look(machines: Path, with_ended: bool, umid: str | None) -> Table:
    """The table of now. UmlError if there is no machine `umid`."""
    from time import time

    from runtime.cli.printing import table
    from runtime.machines.ended import all_ended, shown
    from runtime.machines.listing import HEADINGS, listing
    from umlfs.errors import UmlError

    rows = [each.cells() for each in await listing(machines)]
    if with_ended:
        blank = [""] * 4
        rows += [[it.umid, "", shown(it, time()), it.root, *blank, it.last_words] for it in all_ended(machines)]
    if umid is not None:
        rows = [row for row in rows if row[0] == umid]
        if not rows:
            raise UmlError(f"{umid}: no such machine is running", "'uml ps -a' lists those that have ended, too")
    return table((*HEADINGS, "LAST WORDS") if with_ended else HEADINGS, rows)


async def _lines_of(machines: Path, umid: str | None) -> dict[str, str]:
    """Where the consoles of `umid` are, by their names."""
    from runtime.machines.listing import listing

    if umid is None:
        return {}
    return next((each.lines for each in await listing(machines) if each.umid == umid), {})
