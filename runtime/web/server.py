"""The server of the page: what listens where, and who is let in."""

from __future__ import annotations

import errno
import ipaddress
import logging
import os
import secrets
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from runtime.web import classes
from runtime.web.access import Visitor
from runtime.web.class_routes import ClassRoutes
from runtime.web.following import Events, Machines
from runtime.web.gate import Gate
from runtime.web.image_routes import ImageRoutes
from runtime.web.images import Images
from runtime.web.machine_routes import MachineRoutes
from runtime.web.open_trees import OpenTrees
from runtime.web.sockets import SocketRoutes
from runtime.web.static_files import static_files
from umlfs.errors import UmlError, UsageError, no_such, sole
from umlfs.host.socket_holder import holder_of_port

MESSAGE_MAX: Final = 1 << 20
"""Bytes of a message on a websocket."""
END_SECONDS: Final = 1.0
"""How long open requests may take once the server ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """How the page is served."""

    bind: str = "127.0.0.1:8080"
    directory: Path = Path()
    """Where images are."""
    read_only: bool = False
    certificate: Path | None = None
    key: Path | None = None
    names: tuple[str, ...] = ()
    """Names of this server, beside its addresses."""


def parse_bind(text: str) -> tuple[str, int]:
    """`HOST:PORT`, `[HOST]:PORT` or `PORT`. UsageError."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") or "127.0.0.1"
    if not (port.isascii() and port.isdigit() and int(port) < 65536):
        raise UsageError(f"--bind {text}: no port", "write it like 127.0.0.1:8080")
    return host, int(port)


def check(options: ServerOptions) -> None:
    """UsageError for what would not be safe, or cannot be."""
    host, _ = parse_bind(options.bind)
    if (options.certificate is None) != (options.key is None):
        raise UsageError("TLS needs both --cert and --key", "name both files")
    if os.geteuid() == 0:
        raise UsageError("uml web does not run as root: whoever has its token would be root", "run it as yourself")
    if not _is_loopback(host) and options.certificate is None:
        raise UsageError(
            f"--bind {options.bind}: others on the network could read the token",
            "give --cert and --key, or bind 127.0.0.1 and use ssh -L",
        )
    for path in (options.certificate, options.key):
        if path is not None and not os.access(path, os.R_OK):
            raise UsageError(f"{path}: cannot be read", "name a file in PEM form that you may read")
    if not options.directory.is_dir():
        raise no_such(options.directory, "name the one where images are", what="no such directory")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def serve(options: ServerOptions, announce: Callable[[str], object]) -> None:
    """Serve until cancelled. `announce` gets the address with the token, once that can be opened. UmlError,
    UsageError."""
    import hypercorn.trio
    from hypercorn.config import Config

    check(options)
    host, port = parse_bind(options.bind)
    config = Config()
    config.bind = [f"[{host}]:{port}" if ":" in host else f"{host}:{port}"]
    config.errorlog = logging.getLogger("hypercorn.error")
    config.errorlog.setLevel(logging.ERROR)
    config.include_server_header = False
    config.graceful_timeout = END_SECONDS
    config.websocket_max_message_size = MESSAGE_MAX
    if options.certificate is not None:
        config.certfile, config.keyfile = str(options.certificate), str(options.key)
    token = secrets.token_urlsafe(24)
    async with trio.open_nursery() as nursery:
        events, machines = Events(), Machines()
        gate = Gate(
            application(options, nursery, events, machines),
            partial(known, token),
            cookie=f"uml-{port}",
            secure=options.certificate is not None,
            names=(host, *options.names),
        )
        stop = trio.Event()
        start = partial(hypercorn.trio.serve, cast(Any, gate), config, shutdown_trigger=stop.wait, mode="asgi")
        try:
            addresses = await nursery.start(start)
        except (OSError, BaseExceptionGroup) as error:
            raise _no_listener(options.bind, sole(error)) from None
        nursery.start_soon(events.run)
        announce(f"{addresses[0]}/?token={token}")
        try:
            await trio.sleep_forever()
        finally:
            nursery.cancel_scope.cancel()


def _no_listener(bind: str, error: BaseException) -> BaseException:
    if not isinstance(error, OSError):
        return error
    if error.errno == errno.EADDRINUSE:
        who = holder_of_port(int(bind.rpartition(":")[2]))
        return UmlError(f"--bind {bind}: the port is taken by {who}", "choose another port, or 0 for any")
    return UmlError(f"--bind {bind}: {os.strerror(error.errno) if error.errno else error}", "choose another address")


def known(token: str) -> Iterator[tuple[str, Visitor]]:
    """The secrets that open the page, and to whom: the token, and those of students of all classes."""
    yield token, Visitor("teacher")
    for lesson in classes.all_classes():
        for student in lesson.students:
            yield student.secret, Visitor(student.name, lesson.umid(student.name))


def application(options: ServerOptions, nursery: trio.Nursery, events: Events, machines: Machines) -> Starlette:
    """What is behind the gate."""
    images, only = Images(options.directory), options.read_only
    return Starlette(
        routes=[
            *_static_routes(static_files().items()),
            *MachineRoutes(machines, images, read_only=only).routes(),
            *ImageRoutes(images, OpenTrees(nursery), read_only=only).routes(),
            *ClassRoutes(machines, read_only=only).routes(),
            *SocketRoutes(events, read_only=only).routes(),
        ]
    )


def _static_routes(files: Iterable[tuple[str, tuple[bytes, str]]]) -> list[Route]:
    def served(content: bytes, kind: str) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            return Response(content, media_type=kind)

        return endpoint

    return [Route(path, served(*file)) for path, file in files]
