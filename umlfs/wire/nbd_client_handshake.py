"""The client's side of the NBD handshake. No input or output.

Defined in https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md, sections "Fixed newstyle
negotiation" and "Option types"; what both sides share is in `nbd_handshake_wire`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from umlfs.wire.nbd import BASE_ALLOCATION, PAYLOAD_MAX, ProtocolError
from umlfs.wire.nbd_handshake import (
    BLOCK_SIZE_MAX,
    EXPORT_HEAD,
    EXPORT_NAME_ZEROES,
    FIXED_NEWSTYLE,
    GREETING,
    GREETING_MAGIC,
    NO_ZEROES,
    OPTION_HEAD,
    OPTION_MAGIC,
    OPTION_REPLY_MAGIC,
    REPLY_ERROR_BIT,
    REPLY_HEAD,
    U16,
    U32,
    Export,
    Fields,
    Info,
    Malformed,
    Option,
    Phase,
    Reply,
    string,
)

REPLY_MAX: Final = 64 << 10
"""The longest reply to an option that a client takes: an export's name and description fit eight times."""

REPLIES_MAX: Final = 4096
"""How many replies to one option a client takes."""


class Refused(Exception):
    """The server has no such export, or will not give it to us; `str()` says why, as far as it told."""


class ClientHandshake:
    """The client's side: asks for `name` with structured replies and block status, and takes what it gets.

    Feed what is received and send what comes back, until `phase` is TRANSMISSION or CLOSED.
    """

    def __init__(self, name: str) -> None:
        self.phase = Phase.GREETING
        self.structured = False
        self.context: int | None = None
        """The number under which the server reports `base:allocation`, if it does."""
        self.rest = b""
        """What was received after the handshake's end."""
        self._name = name
        self._size: int | None = None
        self._flags = 0
        self._blocks = (1, 4096, PAYLOAD_MAX)
        self._expected = Option.STRUCTURED_REPLY
        self._zeroes = True
        self._replies = 0
        self._steps: dict[Phase, Callable[[], bytes | None]] = {
            Phase.GREETING: self._take_greeting,
            Phase.OPTIONS: self._take_reply,
            Phase.FLAGS: self._take_export,
        }
        self._answers: dict[Option, Callable[[int, bytes], bytes]] = {
            Option.STRUCTURED_REPLY: self._after_structured_reply,
            Option.SET_META_CONTEXT: self._after_set_meta_context,
            Option.GO: self._after_go,
        }

    @property
    def export(self) -> Export:
        """The export that was chosen; only in the phase TRANSMISSION."""
        assert self._size is not None
        minimum, preferred, maximum = self._blocks
        return Export(self._name, self._size, self._flags, "", minimum, preferred, maximum)

    def feed(self, data: bytes) -> bytes:
        """Take what was received; what to send. Refused, or ProtocolError where the server makes no sense."""
        self.rest += data
        answers = []
        while (step := self._steps.get(self.phase)) is not None and (answer := step()) is not None:
            answers.append(answer)
        return b"".join(answers)

    def _take_greeting(self) -> bytes | None:
        if len(self.rest) < GREETING.size:
            return None
        magic, kind, flags = GREETING.unpack_from(self.rest)
        if magic != GREETING_MAGIC:
            raise ProtocolError("not an NBD server")
        if kind != OPTION_MAGIC or not flags & FIXED_NEWSTYLE:
            raise ProtocolError("an NBD server of the old style")
        self.rest = self.rest[GREETING.size :]
        self._zeroes = not flags & NO_ZEROES
        self.phase = Phase.OPTIONS
        return U32.pack(flags & (FIXED_NEWSTYLE | NO_ZEROES)) + _option(Option.STRUCTURED_REPLY)

    def _take_reply(self) -> bytes | None:
        if len(self.rest) < REPLY_HEAD.size:
            return None
        magic, option, kind, length = REPLY_HEAD.unpack_from(self.rest)
        if magic != OPTION_REPLY_MAGIC or option != self._expected or length > REPLY_MAX:
            raise ProtocolError(f"reply to option {option} of {length} bytes, magic {magic:#x}")
        end = REPLY_HEAD.size + length
        if len(self.rest) < end:
            return None
        self._replies += 1
        if self._replies > REPLIES_MAX:
            raise ProtocolError(f"more than {REPLIES_MAX} replies to option {option}")
        data, self.rest = self.rest[REPLY_HEAD.size : end], self.rest[end:]
        try:
            return self._answers[self._expected](kind, data)
        except Malformed as error:
            raise ProtocolError(f"reply to option {option}: {error}") from None

    def _ask(self, option: Option, data: bytes = b"") -> bytes:
        self._expected, self._replies = option, 0
        return _option(option, data)

    def _after_structured_reply(self, kind: int, data: bytes) -> bytes:
        if kind != Reply.ACK:
            _check_error(kind)
            return self._ask_go()
        self.structured = True
        return self._ask(Option.SET_META_CONTEXT, string(self._name) + U32.pack(1) + string(BASE_ALLOCATION))

    def _after_set_meta_context(self, kind: int, data: bytes) -> bytes:
        if kind == Reply.META_CONTEXT:
            fields = Fields(data)
            number = fields.u32()
            if fields.rest() == BASE_ALLOCATION.encode():
                self.context = number
            return b""
        if kind != Reply.ACK:
            _check_error(kind)
            self.context = None
        return self._ask_go()

    def _ask_go(self) -> bytes:
        return self._ask(Option.GO, string(self._name) + U16.pack(1) + U16.pack(Info.BLOCK_SIZE))

    def _after_go(self, kind: int, data: bytes) -> bytes:
        if kind == Reply.INFO:
            self._take_info(Fields(data))
        elif kind == Reply.ACK:
            if self._size is None:
                raise ProtocolError("no size given")
            self.phase = Phase.TRANSMISSION
        elif kind == Reply.ERR_UNSUP:
            self.phase = Phase.FLAGS
            self.context = None
            return _option(Option.EXPORT_NAME, self._name.encode())
        else:
            _check_error(kind)
            self.phase = Phase.CLOSED
            raise Refused(_refusal(kind, data))
        return b""

    def _take_info(self, fields: Fields) -> None:
        kind = fields.u16()
        if kind == Info.EXPORT:
            self._size, self._flags = EXPORT_HEAD.unpack(fields.take(EXPORT_HEAD.size))
        elif kind == Info.BLOCK_SIZE:
            self._blocks = (fields.u32(), fields.u32(), fields.u32())
            minimum, preferred, maximum = self._blocks
            if not 0 < minimum <= BLOCK_SIZE_MAX or minimum & (minimum - 1) or minimum > min(preferred, maximum):
                raise ProtocolError(f"block sizes {minimum}, {preferred}, {maximum}")

    def _take_export(self) -> bytes | None:
        """The answer to EXPORT_NAME, of a server that does not know GO."""
        size = EXPORT_HEAD.size + (len(EXPORT_NAME_ZEROES) if self._zeroes else 0)
        if len(self.rest) < size:
            return None
        self._size, self._flags = EXPORT_HEAD.unpack_from(self.rest)
        self.rest = self.rest[size:]
        self.phase = Phase.TRANSMISSION
        return b""


def _option(option: Option, data: bytes = b"") -> bytes:
    return OPTION_HEAD.pack(OPTION_MAGIC, option, len(data)) + data


def _check_error(kind: int) -> None:
    if not kind & REPLY_ERROR_BIT:
        raise ProtocolError(f"unexpected reply {kind} to an option")


def _refusal(kind: int, data: bytes) -> str:
    names = {
        Reply.ERR_UNKNOWN: "no such export",
        Reply.ERR_POLICY: "not allowed",
        Reply.ERR_TLS_REQD: "it wants TLS",
        Reply.ERR_SHUTDOWN: "it is shutting down",
    }
    reason = names.get(Reply(kind), "refused") if kind in Reply.__members__.values() else f"error {kind:#x}"
    said = data.decode(errors="replace").strip()
    return f"{reason} ({said})" if said else reason
