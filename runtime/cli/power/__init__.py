"""`uml halt`, `reboot`, `cad`, `stop` and `go`: ending, restarting and pausing running machines."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final

import click

SECONDS: Final = 90.0

umids = click.argument("umids", metavar="UMID...", nargs=-1, required=True)


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
    @umids
    def command(now: bool, timeout: float, umids: tuple[str, ...]) -> None:
        from runtime.machines import client

        request = {"do": "power", "action": name, "seconds": None if now else timeout}
        _all([partial(client.ask, client.find(umid), request) for umid in dict.fromkeys(umids)])

    return command


def by_console(name: str, help_page: str) -> click.Command:
    """The command that sends its own name to a machine's management console."""

    @click.command(name, help=help_page)
    @umids
    def command(umids: tuple[str, ...]) -> None:
        from runtime.mconsole.client import Client
        from runtime.mconsole.sockets import find_socket
        from umlfs.errors import UmlError

        async def ask(umid: str, client: Client) -> None:
            reply = await client.request(name)
            if reply.err:
                raise UmlError(f"{umid}: {reply.text.strip()}", f"'uml mconsole {umid} help' lists what it does")

        _all([partial(ask, umid, Client(find_socket(umid))) for umid in dict.fromkeys(umids)])

    return command


def _all(requests: Sequence[Callable[[], Awaitable[object]]]) -> None:
    """Make all of them at once, to the end. UmlError: what failed, a line for each."""
    import trio

    from umlfs.errors import UmlError

    failed: list[UmlError] = []

    async def make(request: Callable[[], Awaitable[object]]) -> None:
        try:
            await request()
        except UmlError as error:
            failed.append(error)

    async def work() -> None:
        async with trio.open_nursery() as nursery:
            for request in requests:
                nursery.start_soon(make, request)

    trio.run(work)
    if failed:
        *others, last = failed
        raise UmlError(last.what, last.way_out, details="\n".join([*map(str, others), last.details]).strip("\n"))
