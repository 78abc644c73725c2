"""A vhost-user front end: plays the guest's side of the protocol, of the rings, and of a FUSE mount.

    async with connected(device) as guest:
        await guest.set_up()
        answer = await guest.transact([b"request"], [128])

`Guest` is also a `Transport` for a `FuseClient`. It keeps to the rules; a test that does not sends what it likes with
`send` and `request`, and writes what it likes into `memory` and the `rings`.
"""

from __future__ import annotations

import array
import contextlib
import mmap
import os
import socket
import struct
from collections.abc import AsyncIterator, Sequence

import trio

from tests.virtio.ring import DriverRing
from umlfs.virtio.device import VirtioDevice
from umlfs.virtio.vhost_user import Backend

GUEST = 0x1D7A_9000
"""The guest address of the first byte of memory, and its place in the memory's file, as UML has them."""
SIZE = 8 << 20
USER = 0x7F00_0000_0000
"""What a front end with addresses of its own adds to guest addresses."""
VERSION, REPLY, NEED_REPLY = 1, 4, 8
GET_FEATURES, SET_FEATURES, SET_OWNER, RESET_OWNER, SET_MEM_TABLE = range(1, 6)
SET_VRING_NUM, SET_VRING_ADDR, SET_VRING_BASE, GET_VRING_BASE = range(8, 12)
SET_VRING_KICK, SET_VRING_CALL, SET_VRING_ERR = range(12, 15)
GET_PROTOCOL_FEATURES, SET_PROTOCOL_FEATURES, GET_QUEUE_NUM, SET_VRING_ENABLE = range(15, 19)
SET_BACKEND_REQ_FD, GET_CONFIG, SET_CONFIG = 21, 24, 25
PROTOCOL_FEATURES = 0x228


class Guest:
    """The front end's end of a connection, its memory, and a ring for each queue."""

    def __init__(self, connection: socket.socket, queues: int, ring_size: int) -> None:
        self.socket = trio.socket.from_stdlib_socket(connection)
        self.file = os.memfd_create("guest", os.MFD_CLOEXEC)
        os.ftruncate(self.file, GUEST + SIZE)
        self.memory = memoryview(mmap.mmap(self.file, SIZE, offset=GUEST))
        share = SIZE // queues
        self.rings = [
            DriverRing(self.memory, GUEST, ring_size, share * index, share * (index + 1)) for index in range(queues)
        ]
        self.kicks = [os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK) for _ in range(queues)]
        pairs = [socket.socketpair() for _ in range(queues)]
        self.calls = [ours for ours, _ in pairs]
        self._theirs = [theirs for _, theirs in pairs]
        self.answers: dict[tuple[int, int], bytes] = {}
        """By queue and head: what came back and was not asked for yet."""
        self._answered = trio.Condition()
        self.interrupts = 0
        """How often a device has told of answers."""

    def close(self) -> None:
        """Hang up, as a guest that dies."""
        self.socket.close()
        for end in (*self.calls, *self._theirs):
            end.close()
        for descriptor in (self.file, *self.kicks):
            os.close(descriptor)

    # Messages ---------------------------------------------------------------------------------

    async def send_bytes(self, data: bytes, descriptors: Sequence[int] = ()) -> None:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        sent = await self.socket.sendmsg([data], rights)
        assert sent == len(data)

    async def send(self, request: int, payload: bytes = b"", descriptors: Sequence[int] = (), flags: int = 1) -> None:
        await self.send_bytes(struct.pack("<III", request, flags, len(payload)) + payload, descriptors)

    async def receive(self) -> tuple[int, bytes]:
        """The next reply: its request and payload. EOFError if the back end has hung up."""
        request, flags, size = struct.unpack("<III", await self._exactly(12))
        assert flags == VERSION | REPLY
        return request, await self._exactly(size)

    async def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            try:
                part = await self.socket.recv(size - len(data))
            except ConnectionResetError:
                part = b""
            if not part:
                raise EOFError
            data += part
        return data

    async def get(self, request: int, payload: bytes = b"") -> bytes:
        """Send a request that has a reply of its own; the reply."""
        await self.send(request, payload)
        echoed, answer = await self.receive()
        assert echoed == request
        return answer

    async def request(self, request: int, payload: bytes = b"", descriptors: Sequence[int] = ()) -> int:
        """Send a request and wait for its acknowledgement: 0 is success."""
        await self.send(request, payload, descriptors, VERSION | NEED_REPLY)
        echoed, answer = await self.receive()
        assert echoed == request
        return int.from_bytes(answer, "little")

    async def must(self, request: int, payload: bytes = b"", descriptors: Sequence[int] = ()) -> None:
        assert await self.request(request, payload, descriptors) == 0

    async def refused(self, request: int, payload: bytes = b"", descriptors: Sequence[int] = ()) -> None:
        assert await self.request(request, payload, descriptors) != 0

    # Setting up -------------------------------------------------------------------------------

    async def set_up(self) -> None:
        """All that the UML kernel says before the driver can use its queues, in the same order."""
        await self.greet()
        await self.bind()

    async def greet(self) -> None:
        """What is said at boot."""
        await self.send(SET_OWNER)
        (self.features,) = struct.unpack("<Q", await self.get(GET_FEATURES))
        assert self.features & 1 << 30
        (offered,) = struct.unpack("<Q", await self.get(GET_PROTOCOL_FEATURES))
        assert offered & PROTOCOL_FEATURES == PROTOCOL_FEATURES
        await self.must(SET_PROTOCOL_FEATURES, struct.pack("<Q", PROTOCOL_FEATURES))

    async def bind(self) -> None:
        """What is said when a driver binds."""
        await self.must(SET_FEATURES, struct.pack("<Q", self.features))
        await self.map()
        for index in range(len(self.rings)):
            await self.must(SET_VRING_CALL, struct.pack("<Q", index), [self._theirs[index].fileno()])
            await self.set_ring(index)
        for index in range(len(self.rings)):
            await self.must(SET_VRING_KICK, struct.pack("<Q", index), [self.kicks[index]])
            await self.enable(index)

    async def unbind(self) -> None:
        """What is said when a driver goes: queues from the last to the first, and a request to end with."""
        for index in reversed(range(len(self.rings))):
            await self.enable(index, False)
        await self.get(GET_FEATURES)

    async def map(self) -> None:
        await self.must(SET_MEM_TABLE, self.table((GUEST, SIZE, GUEST + USER, GUEST)), [self.file])

    @staticmethod
    def table(*regions: tuple[int, int, int, int]) -> bytes:
        """A memory table of (guest address, size, user address, offset in the file); with room for two, as UML has."""
        return struct.pack("<II", len(regions), 0) + b"".join(struct.pack("<QQQQ", *r) for r in regions).ljust(
            64, b"\0"
        )

    async def set_ring(self, index: int) -> None:
        """A new ring at index 0."""
        ring = self.rings[index]
        ring.reset()
        await self.must(SET_VRING_NUM, struct.pack("<II", index, ring.size))
        await self.must(SET_VRING_BASE, struct.pack("<II", index, 0))
        await self.must(SET_VRING_ADDR, self.addresses(index))

    def addresses(self, index: int) -> bytes:
        desc, avail, used = (address + USER for address in self.rings[index].addresses)
        return struct.pack("<IIQQQQ", index, 0, desc, used, avail, (1 << 64) - 1)

    async def enable(self, index: int, enable: bool = True) -> None:
        await self.must(SET_VRING_ENABLE, struct.pack("<II", index, enable))

    # Requests ---------------------------------------------------------------------------------

    def kick(self, queue: int) -> None:
        os.eventfd_write(self.kicks[queue], 1)

    def add(self, queue: int, readable: Sequence[bytes], writable: Sequence[int], *, indirect: bool = False) -> int:
        """Offer a chain, and kick if the device asks for it; returns the head of the chain."""
        head = self.rings[queue].add(readable, writable, indirect=indirect)
        if self.rings[queue].wants_kick:
            self.kick(queue)
        return head

    async def wait(self, queue: int, head: int) -> bytes:
        """What the device wrote into the chain, once it has given it back."""
        async with self._answered:
            while (queue, head) not in self.answers:
                await self._answered.wait()
        return self.answers.pop((queue, head))

    async def transact(self, request: Sequence[bytes], room: Sequence[int], queue: int = -1) -> bytes:
        """A request on the last queue, and its answer."""
        queue %= len(self.rings)
        return await self.wait(queue, self.add(queue, request, room))

    def post(self, request: Sequence[bytes]) -> None:
        """A request on the first queue, whose answer nobody waits for."""
        self.add(0, request, [])

    async def collect(self, queue: int) -> None:
        """For ever: take what the device gives back, whenever it says so."""
        while True:
            await trio.lowlevel.wait_readable(self.calls[queue])
            if not (data := self.calls[queue].recv(4096)):
                return
            self.interrupts += len(data) // 8
            async with self._answered:
                self.answers.update(((queue, head), data) for head, data in self.rings[queue].collect())
                self._answered.notify_all()


@contextlib.asynccontextmanager
async def connected(device: VirtioDevice, *, ring_size: int = 256) -> AsyncIterator[Guest]:
    """A back end that serves `device`, and its guest. At the end the guest hangs up, and the back end must end."""
    theirs, ours = socket.socketpair()
    async with trio.open_nursery() as nursery:
        guest = Guest(theirs, device.queues, ring_size)
        nursery.start_soon(Backend(device, ours).run)
        try:
            async with trio.open_nursery() as collectors:
                for queue in range(device.queues):
                    collectors.start_soon(guest.collect, queue)
                yield guest
                collectors.cancel_scope.cancel()
        finally:
            guest.close()
