"""The public socket of a machine: what only we know is answered here, the rest goes to the kernel's own socket.

Requests of one client are done in their order, those of different clients at the same time. What comes is bounded:
a client has few requests waiting, and there are few clients; beyond that requests are dropped, as the protocol's
datagrams may be.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import trio

from runtime.mconsole.client import collect
from runtime.mconsole.datagrams import Datagram, bound, receive
from runtime.mconsole.outlet import Gone, Outlet
from runtime.mconsole.wire import Refused, Reply, decode_request, encode_reply
from umlfs.errors import UmlError

log = logging.getLogger(__name__)

Handler = Callable[[str], Awaitable[Reply]]
"""Gets what follows the first word of a request, without the blanks between: `ubd3=disk` of `config ubd3=disk`.
UmlError and OSError become replies."""

CLIENTS_MAX: Final = 32
"""How many clients may have requests under way; each may hold a reply of some MiB."""

WAITING_MAX: Final = 16
"""How many requests of one client may wait for the one that is being done."""

KERNEL_SECONDS: Final = 30.0
"""How long the kernel may be silent before the client is told that it is."""

TURN: Final = 32
"""How many datagrams are taken before other tasks get their turn."""


@contextlib.asynccontextmanager
async def serving(
    path: Path,
    kernel_socket: Path,
    handlers: Mapping[str, Handler],
    help_lines: Sequence[str] = (),
    replies: Path | None = None,
) -> AsyncIterator[None]:
    """Answer requests at `path`, which lies in a directory of the caller's own, until the context ends.

    `handlers` are our own requests by the words they begin with, such as `config ubd` or `stats`; the longest that
    fits is taken, and as in the kernel the rest of the last word is its matter. Every other request goes to the
    kernel, whose socket need not be there yet; it answers in the directory `replies`, see `Exchange`. `help_lines` are
    added to the kernel's `help`. UmlError if the socket cannot be made.
    """
    with bound(path) as public:
        async with trio.open_nursery() as nursery:
            server = _Server(public, kernel_socket, handlers, help_lines, replies, nursery)
            nursery.start_soon(server.listen)
            yield
            nursery.cancel_scope.cancel()


class _Server:
    def __init__(
        self,
        public: socket.socket,
        kernel: Path,
        handlers: Mapping[str, Handler],
        help_lines: Sequence[str],
        replies: Path | None,
        nursery: trio.Nursery,
    ) -> None:
        self._public = public
        self._replies = replies
        self._kernel = kernel
        self._handlers = sorted(handlers.items(), key=lambda item: -len(item[0]))
        self._help_lines = help_lines
        self._nursery = nursery
        self._waiting: dict[str | bytes | None, deque[bytes]] = {}
        """What each client that is being served has asked since."""

    async def listen(self) -> None:
        """Take requests until cancelled."""
        while True:
            await trio.lowlevel.wait_readable(self._public)
            with contextlib.suppress(BlockingIOError):
                for _ in range(TURN):
                    self._take(receive(self._public))

    def _take(self, request: Datagram) -> None:
        if request.uid != os.getuid():
            self._refuse(request)
        elif (waiting := self._waiting.get(request.address)) is not None:
            if len(waiting) < WAITING_MAX:
                waiting.append(request.data)
        elif len(self._waiting) < CLIENTS_MAX:
            self._waiting[request.address] = deque([request.data])
            self._nursery.start_soon(self._serve, request.address)

    def _refuse(self, request: Datagram) -> None:
        """Say no to another user, if that can be done at once: they get nothing that costs us memory or time."""
        log.info("a request of user %s was refused", request.uid)
        reply = Reply(-errno.EPERM, "the machine is another user's")
        if request.address is not None:
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as once:
                once.setblocking(False)
                once.sendto(encode_reply(reply)[0], request.address)

    async def _serve(self, address: str | bytes | None) -> None:
        """Answer what one client asks, until it has asked nothing more."""
        waiting = self._waiting[address]
        try:
            with Outlet(address, self._public) as outlet:
                while waiting:
                    await outlet.send(await self._answer(waiting.popleft()))
        except Gone as error:
            log.debug("a client is gone: %s", error)
        finally:
            del self._waiting[address]

    async def _answer(self, datagram: bytes) -> Sequence[bytes]:
        try:
            text = decode_request(datagram)
        except Refused as refusal:
            return [refusal.datagram]
        try:
            if text.startswith("help"):
                return encode_reply(await self._help(text))
            if (found := self._handler(text)) is not None:
                handler, argument = found
                return encode_reply(await handler(argument))
            return (await self._ask_kernel(text))[0]
        except (UmlError, OSError) as error:
            return encode_reply(_failure(error))
        except Exception:
            log.exception("a request failed: %r", text)
            return encode_reply(Reply(1, "internal error; the machine's log has more"))

    def _handler(self, text: str) -> tuple[Handler, str] | None:
        """Whose the request is, and what it gets."""
        for words, handler in self._handlers:
            word, _, start = words.partition(" ")
            argument = text.removeprefix(word).lstrip()
            if text.startswith(word) and argument.startswith(start):
                return handler, argument
        return None

    async def _help(self, text: str) -> Reply:
        """The kernel's help and ours; ours alone if it says nothing."""
        ours = "".join(f"    {line}\n" for line in self._help_lines)
        try:
            _, reply = await self._ask_kernel(text)
        except UmlError:
            return Reply(0, f"Commands:\n{ours}")
        return Reply(reply.err, reply.text + ours)

    async def _ask_kernel(self, text: str) -> tuple[list[bytes], Reply]:
        """All of the answer is taken before any goes on: with a client that does not read the kernel would wait, and
        the guest with it."""
        return await collect(self._kernel, text, KERNEL_SECONDS, self._replies)


def _failure(error: UmlError | OSError) -> Reply:
    if isinstance(error, OSError) and error.errno:
        return Reply(-error.errno, error.strerror or str(error))
    return Reply(1, str(error))
