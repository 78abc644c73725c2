"""`uml kill`: a signal for processes of a guest."""

from __future__ import annotations

import click


@click.command("kill")
@click.option("-s", "--signal", "name", default="TERM", metavar="NAME", help="A signal's name or number.  [TERM]")
@click.argument("umid")
@click.argument("pids", nargs=-1, required=True, type=click.IntRange(min=1), metavar="PID...")
def command(name: str, umid: str, pids: tuple[int, ...]) -> None:
    """Send a signal to processes of the guest UMID, by their numbers in there.

    `uml top UMID` lists them.

    \b
    Example:
      uml kill web 312
      uml kill web -s HUP 1
    """
    import signal

    import trio

    from runtime.machines import client, processes
    from umlfs.errors import UsageError

    word = name.upper().removeprefix("SIG")
    known = {each.name.removeprefix("SIG") for each in signal.Signals}
    if word not in known and not (word.isdecimal() and 0 <= int(word) <= 64):
        raise UsageError(f"{name}: no such signal", "name one, such as TERM, HUP or KILL")
    trio.run(processes.kill, client.find(umid), word, pids)
