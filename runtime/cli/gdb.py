"""`uml gdb`."""

from __future__ import annotations

import click


@click.command("gdb", context_settings={"allow_interspersed_args": False})
@click.argument("umid")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[GDB ARGUMENT]...")
def command(umid: str, arguments: tuple[str, ...]) -> None:
    """Attach gdb to the kernel of the machine UMID, which stands still until gdb has it go on.

    The signals that the kernel lives by are passed on, and its own scripts for gdb are loaded where it was built with
    them (`lx-symbols`, `lx-ps`, `lx-dmesg`). A kernel of the flavour debug has symbols.

    \b
    Example:
      uml gdb web
      uml gdb web -batch -ex bt
    """
    import os
    import sys
    from pathlib import Path

    import trio

    from runtime.kernels.debugging import advice, check_may_attach, gdb_command
    from runtime.machines import client
    from umlfs.errors import UmlError

    found = trio.run(client.state, client.find(umid))
    pid = found["kernel"]
    if not pid:
        raise UmlError(f"{umid}: the machine is {found['state']}", "try again when it runs")
    check_may_attach(f"uml gdb {umid}")
    kernel = Path(os.readlink(f"/proc/{pid}/exe"))
    line = gdb_command(pid, kernel)
    if text := advice(kernel):
        click.echo(f"uml: {text}", err=True)
    sys.stdout.flush()
    os.execv(line[0], [*line, *arguments])
