"""`uml clone`: a machine like one that runs."""

from __future__ import annotations

import sys

import click

from runtime.cli.printing import printable


@click.command("clone")
@click.option("--into", "directory", default="", metavar="DIR", help="Where the copies go.  [beside the originals]")
@click.argument("umid")
@click.argument("new")
def command(directory: str, umid: str, new: str) -> None:
    """Boot a machine NEW that is like UMID at this moment: from copies of the COW files that UMID writes to.

    What UMID's programs have in memory is not copied: NEW boots. UMID goes on.

    \b
    Example:
      uml clone web web-2
    """
    import os

    import trio

    from runtime.machines import client, cloning, start
    from runtime.machines.supervisor import Supervisor

    described, remarks = trio.run(
        cloning.clone, client.find(umid), new, os.path.abspath(directory) if directory else ""
    )
    for remark in remarks:
        print(f"uml: {printable(remark)}", file=sys.stderr)
    start.in_background(Supervisor(described))
    click.echo(new)
