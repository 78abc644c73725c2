"""`uml forward`: ports of this host that lead into a running machine."""

from __future__ import annotations

import click


@click.command("forward")
@click.argument("umid")
@click.argument("ports", nargs=-1, required=True, metavar="[ADDR:]PORT:[HOST:]PORT...")
def command(umid: str, ports: tuple[str, ...]) -> None:
    """Have TCP ports of this host lead to ports of the machine UMID, until Ctrl-C.

    Connections go through the agent in the guest, which needs no network for it. HOST is as the guest sees it, by
    default itself; ADDR is this host's, by default 127.0.0.1; port 0 is any that is free.

    \b
    Example:
      uml forward web 8080:80
      uml forward web 5432 127.0.0.2:2222:22
    """
    import sys

    import trio

    from runtime.cli.printing import printable
    from runtime.machines import client, forwarding

    path = client.find(umid)
    forwards = [forwarding.parse(word) for word in ports]

    def tell(line: str) -> None:
        print(f"uml: {printable(line)}", file=sys.stderr, flush=True)

    trio.run(forwarding.serve, path, forwards, tell)
