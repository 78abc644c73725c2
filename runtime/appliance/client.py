"""The client's end of a kept appliance."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Final

import trio

from runtime.appliance.keeping import HELLO_MAX, connect, make_directory, socket_path
from runtime.appliance.part import Part, choose
from umlfs.errors import UmlError
from umlfs.filesystem import Entry, Filesystem
from umlfs.sources import Source
from umlfs.stream.connection import StreamConnection
from umlfs.stream.filesystem import FuseStream
from umlfs.wire import stream_replies as replies

if TYPE_CHECKING:
    from runtime.standby.worker import Commands

_PIECE: Final = 256 * 1024
HELLO_SECONDS: Final = 60.0
"""How long a kept appliance may be busy with another client."""


@contextlib.asynccontextmanager
async def kept_tree(source: Source, partition: int | None) -> AsyncIterator[tuple[Filesystem, str] | None]:
    """The filesystem of the image's partition and its kind, by the appliance that is kept for it; None if none is.

    UmlError, UsageError.
    """
    raw = connect(source)
    if raw is None:
        yield None
        return
    with raw:
        raw.setblocking(False)
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(raw))
        hello, rest = await _greet(stream, source)
        part, record = _chosen(hello, source, partition)
        connection = StreamConnection()
        connection.push([memoryview(rest)])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_send, stream, connection)
            nursery.start_soon(_receive, stream, connection)
            nursery.start_soon(connection.watch)
            yield FuseStream(connection, _root(record, source), read_only=True), part.kind or ""
            nursery.cancel_scope.cancel()


def end_kept(source: Source) -> None:
    """End the appliance that is kept for the image, if there is one, and wait for its end. Blocks."""
    connection = connect(source)
    if connection is None:
        return
    with connection:
        connection.settimeout(HELLO_SECONDS)
        with contextlib.suppress(OSError):
            connection.sendall(b"end\n")
            while connection.recv(4096):
                pass


def prolong(source: Source, seconds: int) -> bool:
    """Have the appliance that is kept for the image be kept for `seconds` after its last client, if that is more than
    it would be; False if there is none. Blocks."""
    connection = connect(source)
    if connection is None:
        return False
    with connection:
        connection.settimeout(HELLO_SECONDS)
        try:
            connection.sendall(b"keep %d\n" % seconds)
            return bool(connection.recv(1))
        except OSError:
            return False


def keep(source: Source, seconds: int, commands: Commands | None = None) -> None:
    """See to it that an appliance for the image `source` is kept for `seconds` after its last client: one that there
    is, or a new one in the background, with a standby that does `commands`. To be called without an event loop.
    UmlError."""
    if prolong(source, seconds):
        return
    # What serves one takes longer to import than one that is there takes to answer.
    from runtime.appliance.kept import serve_kept
    from runtime.process import background, processes

    def work(ready: Callable[[], None]) -> None:
        with processes.for_machines(), _standby(source, commands):
            trio.run(serve_kept, source, float(seconds), ready)

    background.start(work)


def _standby(source: Source, commands: Commands | None) -> contextlib.AbstractContextManager[None]:
    path = socket_path(source)
    if path is None or commands is None:
        return contextlib.nullcontext()
    from runtime.standby import finding
    from runtime.standby.server import standby

    make_directory()
    return standby(path.with_name(path.name + finding.suffix()), commands, [path])


async def _greet(stream: trio.SocketStream, source: Source) -> tuple[object, bytes]:
    data = b""
    try:
        with trio.fail_after(HELLO_SECONDS):
            await stream.send_all(b"keep 0\n")
            while b"\n" not in data and len(data) < HELLO_MAX:
                piece = await stream.receive_some(4096)
                if not piece:
                    break
                data += piece
        line, _, rest = data.partition(b"\n")
        return json.loads(line), rest
    except (trio.TooSlowError, trio.BrokenResourceError, ValueError):
        raise UmlError(f"{source}: the kept appliance does not answer", "wait, or end it") from None


def _chosen(hello: object, source: Source, partition: int | None) -> tuple[Part, dict[str, object]]:
    """The part that is meant, and what was told of it."""
    if not isinstance(hello, list):
        raise UmlError(f"{source}: the kept appliance makes no sense", "end it")
    parts = [Part(each["number"], each["offset"], each["size"], each["kind"]) for each in hello]
    part = choose(str(source), parts, partition)
    return part, hello[parts.index(part)]


def _root(record: dict[str, object], source: Source) -> Entry:
    if "root" not in record:
        raise UmlError(f"{source}: {record.get('trouble', 'not mounted by the kept appliance')}")
    return replies.entry(bytes.fromhex(str(record["root"])))


async def _send(stream: trio.SocketStream, connection: StreamConnection) -> None:
    buffer = bytearray(_PIECE)
    view = memoryview(buffer)
    with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        while count := await connection.pull([view]):
            await stream.send_all(view[:count])


async def _receive(stream: trio.SocketStream, connection: StreamConnection) -> None:
    buffer = bytearray(_PIECE)
    view = memoryview(buffer)
    raw: trio.socket.SocketType = stream.socket
    try:
        while count := await raw.recv_into(buffer):
            connection.push([view[:count]])
    except (OSError, trio.ClosedResourceError) as error:
        connection.lose(str(error))
    connection.lose("the kept appliance has ended")
