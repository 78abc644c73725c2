"""uml_switch: a switch, or a hub, for machines whose cards are `eth0=daemon`."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from runtime.cli.historical.frame import WrongUsage, complain

CONTROL = "/tmp/uml.ctl"
DATA = "/tmp/uml.data"
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that end it."""
USAGE = """\
Usage : {0} [ -unix control-socket ] [ -hub ] [ -tap tap-device ]
or : {0} -compat-v0 [ -unix control-socket data-socket ] [ -hub ] [ -tap tap-device ]
"""


@dataclass
class SwitchOptions:
    """What the arguments say."""

    control: str = CONTROL
    data: str = ""
    """A path in the file system; empty for an address of its own."""
    hub: bool = False
    tap: str | None = None
    daemon: bool = False


def parse(arguments: Sequence[str]) -> SwitchOptions:
    """The historical arguments. WrongUsage."""
    options = SwitchOptions()
    rest = list(arguments)
    compat = "-compat-v0" in rest[:1]
    if compat:
        options.data = DATA
        rest.pop(0)
    while rest:
        word = rest.pop(0)
        if word == "-unix":
            options.control = _next(rest)
            if compat:
                options.data = _next(rest)
        elif word == "-tap":
            options.tap = _next(rest)
        elif word == "-hub":
            options.hub = True
        elif word == "-daemon":
            options.daemon = True
        else:
            raise WrongUsage
    return options


def _next(rest: list[str]) -> str:
    if not rest:
        raise WrongUsage
    return rest.pop(0)


def run(options: SwitchOptions, ready: Callable[[], None]) -> int:
    """Serve until a signal, or the end of a terminal's input. UmlError, OSError."""
    import trio

    from runtime.network import tap
    from runtime.network.switch import Switch
    from runtime.network.switch_server import SwitchServer
    from umlfs.host.listening import SocketInUseError, unix_listener

    # One that comes early must not leave the socket behind.
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    with ExitStack() as stack:
        try:
            control = stack.enter_context(unix_listener(options.control))
        except SocketInUseError:
            return complain(f"The control socket '{options.control}' has another server attached to it")
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(options.control, 0o777 & ~mask)
        data = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        if options.data:
            Path(options.data).unlink(missing_ok=True)
            data.bind(options.data)
            stack.callback(Path(options.data).unlink, missing_ok=True)
        else:
            data.bind(b"\0uml_switch" + os.urandom(8).hex().encode() + bytes(81))
        taps = []
        if options.tap is not None:
            descriptor, _ = tap.open_tap(options.tap)
            stack.callback(os.close, descriptor)
            taps.append(descriptor)
        server = SwitchServer(Switch(hub=options.hub), _say)

        async def serve() -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_obey, nursery.cancel_scope)
                await server.serve(control, data, taps, ready=ready)

        trio.run(serve)
    return 0


async def _obey(scope: object) -> None:
    import trio

    assert isinstance(scope, trio.CancelScope)
    if sys.stdin is not None and sys.stdin.isatty():
        token = trio.lowlevel.current_trio_token()

        def wait() -> None:
            while os.read(0, 4096):
                pass
            token.run_sync_soon(scope.cancel)

        threading.Thread(target=wait, daemon=True).start()
    with trio.open_signal_receiver(*ENDING) as signals:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
        async for _ in signals:
            scope.cancel()
            return


def _say(line: str) -> None:
    print(line, flush=True)


def main() -> NoReturn:
    """The entry point of `uml_switch`."""
    sys.exit(_main(sys.argv))


def _main(argv: Sequence[str]) -> int:
    from runtime.process import background
    from umlfs.errors import UmlError, described

    name = os.path.basename(argv[0])
    try:
        options = parse(argv[1:])
    except WrongUsage:
        sys.stderr.write(USAGE.format(name))
        return 1

    def ready() -> None:
        tap = f" tap device '{options.tap}'" if options.tap else ""
        _say(f"{name} attached to unix socket '{options.control}'{tap}")

    def work(detach: Callable[[], None]) -> None:
        def both() -> None:
            ready()
            detach()

        if run(options, both):
            raise UmlError(f"The control socket '{options.control}' has another server attached to it")

    try:
        if not options.daemon:
            return run(options, ready)
        background.start(work)
        return 0
    except OSError as error:
        return complain(f"{name}: {described(error)}")
    except (UmlError, ValueError) as error:
        return complain(str(error))
