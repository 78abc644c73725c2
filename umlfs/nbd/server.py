"""An NBD server: serves one `BlockDevice` to any number of clients.

The protocol is in `nbd_handshake_wire` and `nbd_wire`, the life of one client in `nbd_connection`.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
from collections.abc import Sequence
from typing import Final

import trio

from umlfs.block import BlockDevice
from umlfs.errors import UsageError
from umlfs.nbd.connection import NbdConnection
from umlfs.nbd.eager_socket import Crowd, EagerSocket
from umlfs.wire.nbd import ExportFlag
from umlfs.wire.nbd_handshake import BLOCK_SIZE_MAX, STRING_MAX, Export

log = logging.getLogger(__name__)

CLIENTS_MAX: Final = 64
"""How many clients may be connected; one more is hung up on. Tools open up to 16 connections each."""

SEND_BUFFER: Final = 2 << 20
"""The socket buffer asked for: a 1 MiB read fits, so that its reply is off our hands at once."""

EXHAUSTED: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
"""What accept(2) says when the host has no more to give; it may have later."""


def describe(device: BlockDevice, name: str = "", read_only: bool = False, description: str = "") -> Export:
    """What clients are told of `device`. UsageError for a name that is too long."""
    for text in (name, description):
        if len(text.encode()) > STRING_MAX:
            raise UsageError(f"an NBD export name of {len(text.encode())} bytes", f"at most {STRING_MAX} are allowed")
    # A flush covers what was answered on any connection, as they all lead to one device.
    flags = ExportFlag.HAS_FLAGS | ExportFlag.SEND_FLUSH | ExportFlag.SEND_FUA | ExportFlag.CAN_MULTI_CONN
    flags |= ExportFlag.SEND_DF | ExportFlag.SEND_CACHE
    if read_only or device.read_only:
        flags |= ExportFlag.READ_ONLY
    else:
        flags |= ExportFlag.SEND_WRITE_ZEROES
        if device.can_discard:
            flags |= ExportFlag.SEND_TRIM | ExportFlag.SEND_FAST_ZERO
    minimum = _minimum_block(device)
    return Export(name, device.size, int(flags), description, minimum, max(4096, minimum))


def _minimum_block(device: BlockDevice) -> int:
    """The device's block size, or the largest part of it that divides the size: clients round by it."""
    block = min(device.block_size, BLOCK_SIZE_MAX)
    while device.size % block:
        block //= 2
    return block


async def serve_nbd(
    device: BlockDevice,
    listeners: Sequence[socket.socket],
    *,
    name: str = "",
    read_only: bool = False,
    description: str = "",
) -> None:
    """Serve `device` to whoever connects to `listeners` (listening sockets), until cancelled.

    The export is found under `name` and under the empty name. Neither the listeners nor the device are closed.
    """
    export = describe(device, name, read_only, description)
    crowd = Crowd()
    async with trio.open_nursery() as nursery:
        for listener in listeners:
            nursery.start_soon(_accept, device, export, listener, crowd, nursery)


async def _accept(
    device: BlockDevice, export: Export, listener: socket.socket, crowd: Crowd, nursery: trio.Nursery
) -> None:
    listener.setblocking(False)
    while True:
        await trio.lowlevel.wait_readable(listener)
        try:
            connection, _ = listener.accept()
        except (BlockingIOError, ConnectionError):
            continue
        except OSError as error:
            if error.errno not in EXHAUSTED:
                raise
            log.error("cannot take an NBD client: %s", error)
            await trio.sleep(0.1)
            continue
        if crowd.members >= CLIENTS_MAX:
            log.info("an NBD client too many: there are %d", CLIENTS_MAX)
            connection.close()
            continue
        nursery.start_soon(_serve_client, device, export, connection, crowd)


async def _serve_client(device: BlockDevice, export: Export, connection: socket.socket, crowd: Crowd) -> None:
    _tune(connection)
    crowd.members += 1
    try:
        await NbdConnection(device, export, EagerSocket(connection, crowd), crowd.add_busy).run()
    finally:
        crowd.members -= 1


def _tune(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        if connection.family != socket.AF_UNIX:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
