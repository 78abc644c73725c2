"""`uml console`: a line of a running machine."""

from __future__ import annotations

import click


@click.command("console")
@click.argument("umid")
@click.argument("line", required=False)
@click.option("--escape", default="^]", show_default=True, metavar="KEY", help="The key that leaves, ^X or none.")
@click.option("--list", "lists", is_flag=True, help="Say what lines there are, and where each is on this host.")
def command(umid: str, line: str | None, escape: str, lists: bool) -> int:
    """Attach to LINE (con0 to con15, ssl0 to ssl63) of the machine UMID, by default its first console.

    What was said last is shown first. Ctrl-] leaves, and so does `~.` at the beginning of a line; the machine goes on.
    Of several who attach to a line the first one types. Without a terminal it is a pipe.

    \b
    Example:
      uml console debian
      uml console --list debian
      uml console debian con0 </dev/null | grep -m 1 'login:'
    """
    import trio

    from runtime.consoles.client import attach, find_socket
    from runtime.consoles.escape import Escape, parse_key
    from runtime.consoles.spec import Line

    if lists:
        return _list(umid)
    name = str(Line.parse(line)) if line else None
    return trio.run(attach, find_socket(umid), name, Escape(parse_key(escape)))


def _list(umid: str) -> int:
    import trio

    from runtime.cli.printing import printable
    from runtime.machines import client

    lines = dict(trio.run(client.state, client.find(umid)).get("lines", {}))
    for line, place in lines.items():
        click.echo(printable(f"{line}  {place}"))
    return 0
