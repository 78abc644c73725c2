"""`uml move`: a machine goes on at another host."""

from __future__ import annotations

import sys

import click

from runtime.cli.printing import printable


@click.command("move")
@click.option("--to", "target", required=True, metavar="ssh://HOST", help="Where: ssh://[USER@]HOST[:PORT].")
@click.argument("umid")
def command(target: str, umid: str) -> None:
    """Halt a machine, copy what its COW files hold to another host by ssh, and boot it there.

    Its backing files go along while it still runs. That host needs umlfs, with `uml` in PATH. A machine with
    directories, networks or disks that only this host has is refused. If it cannot boot there, it boots here
    again; the files here stay in any case.

    \b
    Example:
      uml move web --to ssh://me@other.example.org
    """
    from runtime.machines import client, moving

    moving.move(client.find(umid), target, lambda line: print(f"uml: {printable(line)}", file=sys.stderr))
