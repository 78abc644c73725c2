"""`uml share`: how much of this host a running machine gets."""

from __future__ import annotations

import click


@click.command("share")
@click.argument("umid")
@click.argument("limits", required=False, metavar="[cpu=N,mem=SIZE,io=WEIGHT]")
def command(umid: str, limits: str | None) -> None:
    """Show how much of this host the machine UMID gets, or change it while it runs.

    It holds for all of its compartment, if it is in one. What is not named stays as it is.

    \b
    Example:
      uml share web
      uml share web cpu=1,mem=2G
    """
    from runtime.machines import client, share
    from runtime.process.share import parse_share
    from umlfs.errors import UsageError

    wanted = None if limits is None else parse_share(limits)
    if wanted is not None and wanted.compartment:
        raise UsageError(f"{limits}: a machine stays in its compartment", "leave out the name")
    group = share.group_of(client.find(umid))
    if wanted is not None:
        share.change(group, wanted)
    click.echo(share.told(group))
