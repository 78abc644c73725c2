"""`uml top`: what runs in guests, and what each guest costs the host."""

from __future__ import annotations

import click


@click.command("top")
@click.option("-n", "--lines", default=20, type=click.IntRange(min=1), help="Processes of each guest.  [20]")
@click.option("-d", "--delay", default=2.0, type=click.FloatRange(min=0.2), help="Seconds between looks.  [2]")
@click.option("--once", is_flag=True, help="Look once, as without a terminal.")
@click.argument("umid", required=False)
def command(lines: int, delay: float, once: bool, umid: str | None) -> None:
    """Show the processes of guests, the busiest first, until interrupted: of UMID, or of all machines of this user.

    The line of a machine says what the host pays: the processor and the memory that its kernel takes. The others are as
    the guest tells.

    \b
    Example:
      uml top
      uml top web --once
    """
    from runtime.cli.live import show
    from runtime.machines import client, top

    path = None if umid is None else client.find(umid)
    show(top.Watched(path, lines).look, None if once else delay)
