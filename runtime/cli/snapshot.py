"""`uml snapshot`: copies of a running machine's disks."""

from __future__ import annotations

import click

from runtime.cli.printing import printable


@click.command("snapshot")
@click.argument("umid")
@click.argument("directory", required=False, default="")
def command(umid: str, directory: str) -> None:
    """Copy the COW files that a running machine writes to, into DIRECTORY or beside the originals; print the copies.

    All are of one moment. The guest's filesystems are frozen meanwhile: what is in the copies is clean.

    \b
    Example:
      uml snapshot web
      uml snapshot web backup
    """
    import os

    import trio

    from runtime.machines import client, cloning

    for copy in trio.run(cloning.snapshot, client.find(umid), os.path.abspath(directory) if directory else ""):
        click.echo(printable(copy))
