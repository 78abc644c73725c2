"""`uml console`: a line of a running machine."""

from __future__ import annotations

import click


@click.command("console")
@click.argument("umid")
@click.argument("line", required=False)
@click.option("--escape", default="^]", show_default=True, metavar="KEY", help="The key that leaves, ^X or none.")
def command(umid: str, line: str | None, escape: str) -> int:
    """Attach to LINE (con0 to con15, ssl0 to ssl63) of the machine UMID, by default its first console.

    What was said last is shown first. Ctrl-] leaves, and so does `~.` at the beginning of a line; the machine goes on.
    Of several who attach to a line the first one types. Without a terminal it is a pipe.

    \b
    Example:
      uml console debian
      uml console debian con0 </dev/null | grep -m 1 'login:'
    """
    import trio

    from runtime.consoles.client import attach, find_socket
    from runtime.consoles.escape import Escape, parse_key
    from runtime.consoles.spec import Line

    name = str(Line.parse(line)) if line else None
    return trio.run(attach, find_socket(umid), name, Escape(parse_key(escape)))
