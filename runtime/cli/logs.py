"""`uml logs`: what a machine's kernel said."""

from __future__ import annotations

import re
import sys

import click


@click.command("logs")
@click.argument("umid")
@click.option("-f", "--follow", is_flag=True, help="Go on until the machine ends.")
@click.option("-n", "--tail", type=click.IntRange(min=0), metavar="N", help="The last N lines only.")
@click.option("--uml-dir", metavar="DIR", help="Where its directory is.  [~/.uml]")
def command(umid: str, follow: bool, tail: int | None, uml_dir: str | None) -> None:
    """Print what a machine's kernel has said since the machine was started, and warnings of umlfs.

    The log stays when the machine has ended, until 'uml rm UMID', until another machine of that name ends, or until
    32 others have ended.

    \b
    Example:
      uml logs web
      uml logs -f web
    """
    import trio

    from runtime.machines import ended
    from runtime.machines.directory import LOG, check_umid, machines_directory, runs
    from umlfs.errors import UmlError

    machines = machines_directory(uml_dir)
    here = machines / check_umid(umid)
    place = here if runs(here) else ended.place_of(machines, umid)
    if place is None or not (place / LOG).is_file():
        raise UmlError(f"{umid}: no log of such a machine", "'uml ps -a' lists the machines that there are")

    async def show() -> None:
        from runtime.machines.following import followed

        first = tail
        async for piece in followed(place / LOG, lambda: follow and runs(here)):
            _print(piece if first is None else _last(piece, first))
            first = None

    trio.run(show)


def _last(data: bytes, count: int) -> bytes:
    lines = data.splitlines(keepends=True)
    return b"".join(lines[len(lines) - min(count, len(lines)) :])


def _print(data: bytes) -> None:
    """Print what a guest said: what could drive a terminal is escaped; a carriage return beside a line's end goes."""
    from runtime.cli.printing import printable_lines

    text = re.sub(rb"^\r+|\r+$", b"", data, flags=re.MULTILINE).decode(errors="replace")
    sys.stdout.write(printable_lines(text))
    sys.stdout.flush()
