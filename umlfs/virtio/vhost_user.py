"""A vhost-user back end: serves one `VirtioDevice` to one front end (a guest kernel) with trio tasks.

One task answers the protocol; the queues have tasks of their own (`Vring`). The front end is hostile. What it gets
wrong is answered with an error, or ends the connection; never with an exception out of `Backend.run`.

There is one thing that a front end could do and we could not bear: cut the file that its memory is in shorter after
we mapped it, or fill the filesystem that it is on, so that touching the mapping raises SIGBUS. Only the kernel process
on the other side can do that, not what runs in its guest: it ends this process, and its own machine with it, and gets
nothing by it. A front end of another user has no business on the socket, which is for its owner alone.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import mmap
import os
import socket
import stat
import sys
from collections.abc import Callable
from typing import Final

import trio

from umlfs.virtio.device import VirtioDevice
from umlfs.virtio.kernel_image import KernelImage
from umlfs.virtio.virtqueue import GuestMemory, Region, RingError
from umlfs.virtio.vring import Vring, first
from umlfs.wire import vhost_user as wire

__all__ = ["Backend", "VirtioDevice", "serve"]

log = logging.getLogger(__name__)

F_VERSION_1: Final = 1 << 32
F_RING_INDIRECT: Final = 1 << 28

SPACE: Final = socket.CMSG_SPACE(wire.DESCRIPTORS_MAX * 4)
"""For the descriptors that come with a message."""
CUT: Final = int(socket.MSG_CTRUNC)
"""There were more. A plain number: the flags that Python gives take microseconds to compare."""
SEND_SECONDS: Final = 30.0
"""How long a front end may leave our replies unread once its socket is full of them."""
ACCEPT_PAUSE_SECONDS: Final = 0.1
"""How long to wait when there is no descriptor left for a new connection."""


class Backend:
    """Serves `device` on one connected socket until the front end hangs up."""

    def __init__(
        self, device: VirtioDevice, connection: socket.socket, kernel: Callable[[], int | None] = lambda: None
    ) -> None:
        """`connection` is the back end's to close. `kernel` gives the process that is to be the front end, if it is a
        child of ours."""
        self._device = device
        connection.setblocking(False)
        self._connection = connection
        self._decoder = wire.Decoder()
        self._memory: GuestMemory | None = None
        self._vrings: list[Vring] = []
        self._channel: socket.socket | None = None
        self._warned = False
        self._image = KernelImage.of(connection, kernel)
        device.on_config_change = self.config_changed

    async def run(self) -> None:
        """Serve until the front end hangs up or breaks the protocol. Raises nothing but cancellation."""
        name = self._device.name
        try:
            async with self._device.running(), trio.open_nursery() as nursery:
                self._vrings = [Vring(self._device, index, nursery) for index in range(self._device.queues)]
                await self._converse()
                nursery.cancel_scope.cancel()
        except* wire.ProtocolError as group:
            log.error("%s: guest stopped: %s", name, first(group))
        except* ConnectionError:
            pass
        except* Exception:
            log.exception("%s: guest stopped by a bug", name)
        finally:
            self._close()

    def config_changed(self) -> None:
        """Tell the guest to read the configuration space again."""
        if self._channel is not None:
            with contextlib.suppress(OSError):
                self._channel.send(wire.config_changed())

    # The conversation -------------------------------------------------------------------------

    async def _converse(self) -> None:
        while True:
            if not self._decoder.partial:
                # Between messages others get their turn. Within one, what comes is there already: a kernel reads the
                # configuration byte by byte, so this counts at a boot.
                await trio.lowlevel.wait_readable(self._connection)
            data, descriptors = await self._receive(self._decoder.needed)
            message = self._decoder.feed(data, descriptors)
            if not data:
                if self._decoder.partial:
                    raise wire.ProtocolError("a message cut short")
                return
            if message is not None:
                await self._reply_to(message)

    async def _reply_to(self, message: wire.Message) -> None:
        try:
            answer = await self._answer(message)
        except (OSError, RingError) as error:
            log.error("%s: vhost-user request %d: %s", self._device.name, message.request, str(error))
            answer = wire.reply_u64(message.request, 1) if message.needs_reply else None
        finally:
            for descriptor in message.descriptors:
                os.close(descriptor)
        if answer is not None:
            await self._send(answer)

    async def _receive(self, size: int) -> tuple[bytes, list[int]]:
        while True:
            try:
                data, ancillary, flags, _address = self._connection.recvmsg(size, SPACE, socket.MSG_CMSG_CLOEXEC)
                break
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._connection)
        descriptors: list[int] = []
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                descriptors += memoryview(content[: len(content) // 4 * 4]).cast("i").tolist()
        if flags & CUT:
            self._decoder.feed(b"", descriptors)
            raise wire.ProtocolError("more descriptors with one message than any takes")
        return data, descriptors

    async def _send(self, data: bytes) -> None:
        view = memoryview(data)
        view = view[self._send_now(view) :]
        if not view:
            return
        with trio.move_on_after(SEND_SECONDS):
            while view:
                await trio.lowlevel.wait_writable(self._connection)
                view = view[self._send_now(view) :]
        if view:
            raise wire.ProtocolError("the front end does not read our replies")

    def _send_now(self, view: memoryview) -> int:
        try:
            return self._connection.send(view)
        except BlockingIOError:
            return 0

    async def _answer(self, message: wire.Message) -> bytes | None:
        """Act on `message`; what to send back, if anything. The whole guest waits meanwhile."""
        request = message.request
        match request:
            case wire.Request.GET_FEATURES:
                return wire.reply_u64(request, self._features)
            case wire.Request.GET_PROTOCOL_FEATURES:
                return wire.reply_u64(request, wire.PROTOCOL_FEATURES)
            case wire.Request.GET_QUEUE_NUM:
                return wire.reply_u64(request, self._device.queues)
            case wire.Request.GET_CONFIG:
                offset, size, _ = message.config_window()
                config = self._device.config()[offset : offset + size]
                return wire.reply_config(request, offset, config.ljust(size, b"\0"))
            case wire.Request.GET_VRING_BASE:
                index, _ = message.vring_state()
                vring = self._vring(index)
                await vring.stop()
                return wire.reply_vring_state(request, index, vring.base)
        if not (await self._set_up_device(message) or await self._set_up_queue(message)):
            self._warn_unknown(request)
            return wire.reply_u64(request, 1) if message.needs_reply else None
        return wire.reply_u64(request, 0) if message.needs_reply else None

    def _warn_unknown(self, request: int) -> None:
        if not self._warned:
            log.warning("%s: unknown vhost-user request %d", self._device.name, request)
            self._warned = True

    # The device -------------------------------------------------------------------------------

    @property
    def _features(self) -> int:
        return self._device.features | F_VERSION_1 | F_RING_INDIRECT | wire.F_PROTOCOL_FEATURES

    async def _set_up_device(self, message: wire.Message) -> bool:
        """Act on a message about the device as a whole; False if it is none."""
        match message.request:
            case wire.Request.SET_OWNER:
                pass
            case wire.Request.RESET_OWNER:
                await self._unbind()
            case wire.Request.SET_FEATURES:
                self._check_features(message.u64(), self._features)
                await self._unbind()
            case wire.Request.SET_PROTOCOL_FEATURES:
                self._check_features(message.u64(), wire.PROTOCOL_FEATURES)
            case wire.Request.SET_CONFIG:
                offset, _, data = message.config_window()
                self._device.write_config(offset, data)
            case wire.Request.SET_BACKEND_REQ_FD:
                self._set_channel(message)
            case wire.Request.SET_MEM_TABLE:
                await self._map(message)
            case _:
                return False
        return True

    @staticmethod
    def _check_features(taken: int, offered: int) -> None:
        if taken & ~offered:
            raise OSError(errno.EINVAL, f"features {taken & ~offered:#x} were not offered")

    async def _unbind(self) -> None:
        """The driver that was there, if any, is gone: the one that comes starts anew."""
        for vring in self._vrings:
            await vring.stop()
            vring.enabled = False
        self._reset()

    def _set_channel(self, message: wire.Message) -> None:
        if len(message.descriptors) != 1:
            raise wire.ProtocolError("a back end channel without its descriptor")
        if not stat.S_ISSOCK(os.fstat(message.descriptors[0]).st_mode):
            raise OSError(errno.ENOTSOCK, "the back end channel is not a socket")
        if self._channel is not None:
            self._channel.close()
        self._channel = socket.socket(fileno=message.descriptors.pop())
        self._channel.setblocking(False)

    async def _map(self, message: wire.Message) -> None:
        """Map the guest's memory. Running queues go on in it; requests under way keep the old mapping."""
        if sys.byteorder != "little":
            raise OSError(errno.ENOTSUP, "rings are little-endian and this host is not")
        regions = zip(message.memory_regions(), message.descriptors, strict=True)
        mapped = []
        for region, descriptor in regions:
            mapped.append(_map_region(region, descriptor))
            if self._image is not None:
                self._image.shares(region.guest_address, region.mmap_offset, descriptor)
        self._memory = GuestMemory(mapped, None if self._image is None else self._image.read)
        for vring in self._vrings:
            try:
                vring.remap(self._memory)
            except RingError:
                await vring.stop()
                raise
            await vring.start(self._memory)

    # The queues -------------------------------------------------------------------------------

    async def _set_up_queue(self, message: wire.Message) -> bool:
        """Act on a message about one queue; False if it is none."""
        match message.request:
            case wire.Request.SET_VRING_NUM:
                index, size = message.vring_state()
                self._vring(index).size = size
            case wire.Request.SET_VRING_BASE:
                index, base = message.vring_state()
                self._vring(index).base = base & 0xFFFF
            case wire.Request.SET_VRING_ADDR:
                index, descriptors, used, available = message.vring_addresses()
                self._vring(index).addresses = (descriptors, available, used)
            case wire.Request.SET_VRING_KICK | wire.Request.SET_VRING_CALL | wire.Request.SET_VRING_ERR:
                await self._set_descriptor(message)
            case wire.Request.SET_VRING_ENABLE:
                index, enable = message.vring_state()
                await self._enable(self._vring(index), bool(enable))
            case _:
                return False
        return True

    def _vring(self, index: int) -> Vring:
        if index >= len(self._vrings):
            raise wire.ProtocolError(f"queue {index} of {len(self._vrings)}")
        return self._vrings[index]

    async def _enable(self, vring: Vring, enable: bool) -> None:
        vring.enabled = enable
        if enable:
            await vring.start(self._memory)
        else:
            await vring.stop()

    async def _set_descriptor(self, message: wire.Message) -> None:
        index, has_descriptor = message.vring_descriptor()
        vring = self._vring(index)
        if message.request == wire.Request.SET_VRING_CALL:
            vring.set_call(message.descriptors.pop() if has_descriptor else None)
        elif message.request == wire.Request.SET_VRING_KICK:
            if not has_descriptor:
                raise OSError(errno.ENOTSUP, "a queue without a kick descriptor")
            await vring.set_kick(message.descriptors.pop())
            await vring.start(self._memory)

    def _close(self) -> None:
        for vring in self._vrings:
            vring.close()
        for descriptor in self._decoder.abandon():
            os.close(descriptor)
        if self._channel is not None:
            self._channel.close()
        self._connection.close()
        if self._image is not None:
            self._image.close()
            self._image = None
        self._memory = None
        self._reset()

    def _reset(self) -> None:
        try:
            self._device.reset()
        except Exception:
            log.exception("%s: not reset properly", self._device.name)


def _map_region(region: wire.MemoryRegion, descriptor: int) -> Region:
    # A mapping past the end of its file would be a SIGBUS waiting to happen.
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or region.size == 0 or found.st_size < region.mmap_offset + region.size:
        raise OSError(errno.EINVAL, "a memory region larger than its file")
    if region.mmap_offset % mmap.ALLOCATIONGRANULARITY:
        raise OSError(errno.EINVAL, "a memory region that does not start at a page")
    try:
        mapping = mmap.mmap(descriptor, region.size, offset=region.mmap_offset)
    except ValueError as error:  # the file became shorter just now
        raise OSError(errno.EINVAL, str(error)) from None
    return Region(region.guest_address, region.user_address, memoryview(mapping))


async def serve(device: VirtioDevice, listener: socket.socket, kernel: Callable[[], int | None] = lambda: None) -> None:
    """Serve `device` to each front end that connects to `listener`, one after the other, until cancelled. `kernel` as
    of `Backend`."""
    accepting = trio.socket.from_stdlib_socket(listener)
    while True:
        try:
            connection, _ = await accepting.accept()
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.ECONNABORTED):
                raise
            log.error("%s: a connection was not accepted: %s", device.name, error)
            await trio.sleep(ACCEPT_PAUSE_SECONDS)
            continue
        await Backend(device, socket.socket(fileno=connection.detach()), kernel).run()
