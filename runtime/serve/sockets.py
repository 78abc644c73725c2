"""Serving a source to other programs, until told to end."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from urllib.parse import quote

import trio

from umlfs.block import BlockDevice
from umlfs.host.listening import tcp_listeners, unix_listener
from umlfs.sources import OpenOptions, Source

Ready = Callable[[str], None]
"""Told once, when clients can connect, what they connect to."""


async def serve_nbd(
    source: Source, where: Path | tuple[str, int], ready: Ready, *, name: str = "", read_only: bool = False
) -> None:
    """Serve a block device over NBD at a socket's path, or an address and port, until SIGINT or SIGTERM.

    `ready` gets the URI. What clients wrote is flushed in the end. UmlError, UsageError.
    """
    from umlfs.nbd.server import serve_nbd as serve

    async with _opened_device(source, read_only) as device:
        if isinstance(where, Path):
            with unix_listener(where) as listener:
                ready(f"nbd+unix:///{quote(name, safe='')}?socket={quote(os.path.join(os.getcwd(), where))}")
                await _until_told(lambda: serve(device, [listener], name=name, read_only=read_only))
            return
        with tcp_listeners(*where) as listeners:
            ready(_tcp_uri(listeners[0], name))
            await _until_told(lambda: serve(device, listeners, name=name, read_only=read_only))


async def serve_virtiofs(source: Source, path: Path, ready: Ready, *, tag: str, read_only: bool = False) -> None:
    """Serve a filesystem as a virtio-fs device (vhost-user) at a socket's path, until SIGINT or SIGTERM.

    `ready` gets the path. UmlError, UsageError.
    """
    from umlfs.virtio import vhost_user
    from umlfs.virtio.fs import VirtioFs

    filesystem = await source.filesystem(OpenOptions(read_only=read_only))
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(_shielded, filesystem.close)
        device = VirtioFs(tag, filesystem, read_only=read_only)
        listener = stack.enter_context(unix_listener(path))
        ready(os.fspath(path))
        await _until_told(lambda: vhost_user.serve(device, listener))


async def serve_virtioblk(
    source: Source, path: Path, ready: Ready, *, serial: str = "", read_only: bool = False
) -> None:
    """Serve a block device as a virtio-blk device (vhost-user) at a socket's path, until SIGINT or SIGTERM.

    `ready` gets the path. What the guest wrote is flushed in the end. UmlError, UsageError.
    """
    from umlfs.virtio import vhost_user
    from umlfs.virtio.blk import VirtioBlk

    async with _opened_device(source, read_only) as opened:
        device = VirtioBlk(opened, serial=serial, read_only=read_only)
        with unix_listener(path) as listener:
            ready(os.fspath(path))
            await _until_told(lambda: vhost_user.serve(device, listener))


@contextlib.asynccontextmanager
async def _opened_device(source: Source, read_only: bool) -> AsyncIterator[BlockDevice]:
    device = await source.device(OpenOptions(read_only=read_only))
    try:
        yield device
        if not device.read_only:
            await device.flush()
    finally:
        await _shielded(device.close)


async def _shielded(close: Callable[[], Awaitable[None]]) -> None:
    with trio.CancelScope(shield=True):
        await close()


async def _until_told(serve: Callable[[], Awaitable[None]]) -> None:
    """Run `serve` until SIGINT or SIGTERM."""
    async with trio.open_nursery() as nursery:

        async def watch(task_status: trio.TaskStatus[None]) -> None:
            with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                task_status.started()
                async for _ in signals:
                    nursery.cancel_scope.cancel()

        await nursery.start(watch)
        await serve()


def _tcp_uri(listener: socket.socket, name: str) -> str:
    address, port = listener.getsockname()[:2]
    host = f"[{address}]" if ":" in address else address
    return f"nbd://{host}:{port}/{quote(name, safe='')}"
