"""`uml exec`: a command in a running machine."""

from __future__ import annotations

import click


@click.command("exec", context_settings={"allow_interspersed_args": False})
@click.option("-i", "interactive", is_flag=True, help="Give it standard input; without this it reads nothing.")
@click.option("-t", "on_terminal", is_flag=True, help="Give it a terminal: this one.")
@click.option("--user", metavar="NAME", help="Run as this user of the guest, a name or a number.  [root]")
@click.option("--env", "variables", multiple=True, metavar="K=V", help="Set a variable, or pass K on with its value.")
@click.option("--pwd", metavar="DIR", help="Start in DIR.  [/]")
@click.argument("umid")
@click.argument("argv", nargs=-1, type=click.UNPROCESSED, metavar="[--] [COMMAND]...")
def command(
    interactive: bool,
    on_terminal: bool,
    user: str | None,
    variables: tuple[str, ...],
    pwd: str | None,
    umid: str,
    argv: tuple[str, ...],
) -> int:
    """Run a command in the running machine UMID; without a command, a shell.

    Standard streams, exit status and signals are the command's own. Any number run side by side. A process that it
    leaves running goes on, and so does `uml exec` for as long as that has its output.

    \b
    Example:
      uml exec web -- systemctl status
      uml exec -it web
      tar c . | uml exec -i web --pwd /srv -- tar x
    """
    import os

    import trio

    from runtime.machine import parsing
    from runtime.machines import client
    from runtime.tty import caller
    from umlfs.errors import UsageError

    if argv and argv[0] == "--":
        argv = argv[1:]
    if on_terminal and not caller.wants_terminal():
        raise UsageError("-t: standard input and output are no terminal", "leave it out")
    environment = {**caller.environment("", user, on_terminal), **parsing.variables(variables)}
    run = client.Run(client.find(umid))
    null = os.open(os.devnull, os.O_RDONLY)
    reads = interactive and not caller.in_background(0)
    streams = None if on_terminal else (0 if reads else null, 1, 2)
    directory = parsing.directory(pwd) or "/"
    return trio.run(lambda: run.run(argv, streams=streams, directory=directory, environment=environment, user=user))
