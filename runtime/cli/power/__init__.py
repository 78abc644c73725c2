"""`uml halt`, `reboot`, `cad`, `stop` and `go`: ending, restarting and pausing a running machine."""

from __future__ import annotations

from typing import Final

import click

SECONDS: Final = 90.0


def in_order(name: str, help_page: str) -> click.Command:
    """The command that has a machine's guest do what it is called."""

    @click.command(name, help=help_page)
    @click.option("--now", is_flag=True, help="Without the guest's help: what it has not written yet is lost.")
    @click.option(
        "--timeout",
        type=click.FloatRange(min=0, min_open=True),
        default=SECONDS,
        metavar="S",
        help=f"End it by force once it has done nothing for S seconds.  [{SECONDS:g}]",
    )
    @click.argument("umid")
    def command(now: bool, timeout: float, umid: str) -> None:
        import trio

        from runtime.machines import client

        request = {"do": "power", "action": name, "seconds": None if now else timeout}
        trio.run(client.ask, client.find(umid), request)

    return command


def by_console(name: str, help_page: str) -> click.Command:
    """The command that sends its own name to a machine's management console."""

    @click.command(name, help=help_page)
    @click.argument("umid")
    def command(umid: str) -> None:
        import trio

        from runtime.mconsole.client import Client
        from runtime.mconsole.sockets import find_socket
        from umlfs.errors import UmlError

        reply = trio.run(Client(find_socket(umid)).request, name)
        if reply.err:
            raise UmlError(f"{umid}: {reply.text.strip()}", f"'uml mconsole {umid} help' lists what it does")

    return command
