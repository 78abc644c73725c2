"""`uml watch`: what happens to machines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from runtime.cli.printing import printable

if TYPE_CHECKING:
    from runtime.mconsole.events import Event


@click.command("watch")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.argument("machines", nargs=-1, metavar="[UMID]...")
def command(as_json: bool, machines: tuple[str, ...]) -> None:
    """Tell what happens to machines from now on: boots, panics, hangs, ends, and words from their guests.

    Machines that come later are followed too. A guest has its say by writing to /proc/mconsole.

    \b
    Example:
      uml watch
      uml watch --json debian
    """
    import trio

    from runtime.mconsole.sockets import HISTORICAL, home
    from runtime.mconsole.watch import watch

    show = _show_json if as_json else _show
    trio.run(watch, home() or HISTORICAL, machines, show)


def _show(event: Event) -> None:
    import time

    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event.time))
    words = " ".join(event.text.split("\n")).strip()
    click.echo(printable(f"{when} {event.machine} {event.event} {words}".rstrip()))


def _show_json(event: Event) -> None:
    click.echo(event.encode().decode().rstrip("\n"))
