"""The NBD handshake: what both sides share, and the server's side. No input or output.

Defined in https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md, sections "Fixed newstyle
negotiation" and "Option types". The server greets, the client answers with its flags and then sends options, each
answered, until one (GO, EXPORT_NAME) begins the transmission phase or one (ABORT) ends it all.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from umlfs.wire.nbd import BASE_ALLOCATION, PAYLOAD_MAX, ProtocolError

GREETING_MAGIC: Final = 0x4E42444D41474943
OPTION_MAGIC: Final = 0x49484156454F5054
OPTION_REPLY_MAGIC: Final = 0x3E889045565A9

FIXED_NEWSTYLE: Final = 1
NO_ZEROES: Final = 2

STRING_MAX: Final = 4096
"""The protocol's limit for export names and metadata context names."""

OPTION_MAX: Final = 64 << 10
"""The longest option that is looked at: a name and a dozen queries of the longest kind. What is longer is passed
over without keeping it, and refused."""

OPTIONS_MAX: Final = 1024
"""How many options a client may send: a real one sends about five, and may list the export of every disk."""

CONTEXT_ID: Final = 1
"""The number under which the server reports `base:allocation`."""

BLOCK_SIZE_MAX: Final = 64 << 10
"""The largest minimum block size that the protocol allows."""


class Option(enum.IntEnum):
    """What a client asks during the handshake."""

    EXPORT_NAME = 1
    ABORT = 2
    LIST = 3
    STARTTLS = 5
    INFO = 6
    GO = 7
    STRUCTURED_REPLY = 8
    LIST_META_CONTEXT = 9
    SET_META_CONTEXT = 10


class Reply(enum.IntEnum):
    """How an option is answered; bit 31 marks errors."""

    ACK = 1
    SERVER = 2
    INFO = 3
    META_CONTEXT = 4
    ERR_UNSUP = 0x80000001
    ERR_POLICY = 0x80000002
    ERR_INVALID = 0x80000003
    ERR_PLATFORM = 0x80000004
    ERR_TLS_REQD = 0x80000005
    ERR_UNKNOWN = 0x80000006
    ERR_SHUTDOWN = 0x80000007
    ERR_BLOCK_SIZE_REQD = 0x80000008
    ERR_TOO_BIG = 0x80000009


REPLY_ERROR_BIT: Final = 0x80000000


class Info(enum.IntEnum):
    """What an INFO reply tells."""

    EXPORT = 0
    NAME = 1
    DESCRIPTION = 2
    BLOCK_SIZE = 3


GREETING: Final = struct.Struct(">QQH")
U16: Final = struct.Struct(">H")
U32: Final = struct.Struct(">I")
OPTION_HEAD: Final = struct.Struct(">QII")
REPLY_HEAD: Final = struct.Struct(">QIII")
EXPORT_HEAD: Final = struct.Struct(">QH")
_INFO_EXPORT: Final = struct.Struct(">HQH")
_INFO_BLOCK_SIZE: Final = struct.Struct(">HIII")
EXPORT_NAME_ZEROES: Final = bytes(124)


@dataclass(frozen=True, slots=True)
class Export:
    """What a server tells about an export."""

    name: str
    size: int
    flags: int
    """`ExportFlag`."""
    description: str = ""
    minimum_block: int = 1
    """Offsets and lengths are multiples of it."""
    preferred_block: int = 4096
    maximum_payload: int = PAYLOAD_MAX


class Phase(enum.Enum):
    """How far a handshake is."""

    GREETING = "greeting"
    """The client has not heard from the server yet."""
    FLAGS = "flags"
    """The server waits for the client's flags."""
    OPTIONS = "options"
    SKIPPING = "skipping"
    """The rest of an option that is too long is being passed over."""
    TRANSMISSION = "transmission"
    """Done: an export is chosen."""
    CLOSED = "closed"
    """Done: no export was chosen, hang up."""


class Malformed(Exception):
    """An option whose contents make no sense: answered with ERR_INVALID."""


class Fields:
    """Reads the fields of an option or a reply."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> bytes:
        if count > len(self._data) - self._at:
            raise Malformed("cut short")
        self._at += count
        return self._data[self._at - count : self._at]

    def u16(self) -> int:
        return int(U16.unpack(self.take(2))[0])

    def u32(self) -> int:
        return int(U32.unpack(self.take(4))[0])

    def string(self) -> str:
        """A string after its length."""
        length = self.u32()
        if length > STRING_MAX:
            raise Malformed(f"a string of {length} bytes")
        return _text(self.take(length))

    def rest(self) -> bytes:
        return self.take(len(self._data) - self._at)

    def end(self) -> None:
        if self._at != len(self._data):
            raise Malformed("something after its end")


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise Malformed("a string that is not UTF-8") from None


def string(text: str) -> bytes:
    data = text.encode()
    return U32.pack(len(data)) + data


class ServerHandshake:
    """The server's side, for the one `export`; the empty name means it too.

    Send `greeting()`, then feed what is received and send what comes back, until `phase` is TRANSMISSION or CLOSED.
    """

    def __init__(self, export: Export) -> None:
        self.phase = Phase.FLAGS
        self.structured = False
        """Whether the client takes structured replies."""
        self.block_status = False
        """Whether the client may ask for block status, in the context `CONTEXT_ID`."""
        self.rest = b""
        """What was received after the handshake's end."""
        self._export = export
        self._zeroes = True
        self._skip = 0
        self._skipped_option = 0
        self._options = 0
        self._context_export: str | None = None
        """The export for which a metadata context was set."""
        self._answers: dict[int, Callable[[bytes], bytes]] = {
            Option.ABORT: self._abort,
            Option.LIST: self._list,
            Option.INFO: self._info,
            Option.GO: self._go,
            Option.STRUCTURED_REPLY: self._structured_reply,
            Option.LIST_META_CONTEXT: self._list_meta_context,
            Option.SET_META_CONTEXT: self._set_meta_context,
        }
        self._steps: dict[Phase, Callable[[], bytes | None]] = {
            Phase.FLAGS: self._take_flags,
            Phase.OPTIONS: self._take_option,
            Phase.SKIPPING: self._take_skipped,
        }

    @staticmethod
    def greeting() -> bytes:
        """What the server says first."""
        return GREETING.pack(GREETING_MAGIC, OPTION_MAGIC, FIXED_NEWSTYLE | NO_ZEROES)

    def feed(self, data: bytes) -> bytes:
        """Take what was received; what to send. ProtocolError where the client makes no sense at all."""
        self.rest += data
        answers = []
        while (step := self._steps.get(self.phase)) is not None and (answer := step()) is not None:
            answers.append(answer)
        return b"".join(answers)

    def _take(self, count: int) -> bytes:
        data, self.rest = self.rest[:count], self.rest[count:]
        return data

    def _take_flags(self) -> bytes | None:
        if len(self.rest) < 4:
            return None
        flags = U32.unpack(self._take(4))[0]
        if flags & ~(FIXED_NEWSTYLE | NO_ZEROES):
            raise ProtocolError(f"client flags {flags:#x}")
        self._zeroes = not flags & NO_ZEROES
        self.phase = Phase.OPTIONS
        return b""

    def _take_option(self) -> bytes | None:
        if len(self.rest) < OPTION_HEAD.size:
            return None
        magic, option, length = OPTION_HEAD.unpack_from(self.rest)
        if magic != OPTION_MAGIC:
            raise ProtocolError(f"option magic {magic:#x}")
        if length > OPTION_MAX:
            self._take(OPTION_HEAD.size)
            self._skip, self._skipped_option = length, option
            self.phase = Phase.SKIPPING
            return b""
        if len(self.rest) < OPTION_HEAD.size + length:
            return None
        self._options += 1
        if self._options > OPTIONS_MAX:
            raise ProtocolError(f"more than {OPTIONS_MAX} options")
        return self._answer(option, self._take(OPTION_HEAD.size + length)[OPTION_HEAD.size :])

    def _take_skipped(self) -> bytes | None:
        if not self.rest:
            return None
        self._skip -= len(self._take(self._skip))
        if self._skip:
            return None
        if self._skipped_option == Option.EXPORT_NAME:
            raise ProtocolError("an export name that is too long")
        self.phase = Phase.OPTIONS
        return _reply(self._skipped_option, Reply.ERR_TOO_BIG, b"option too long")

    def _answer(self, option: int, data: bytes) -> bytes:
        if option == Option.EXPORT_NAME:
            return self._export_name(data)
        answer = self._answers.get(option)
        if answer is None:
            return _reply(option, Reply.ERR_UNSUP, b"option not supported")
        try:
            return answer(data)
        except Malformed as error:
            return _reply(option, Reply.ERR_INVALID, str(error).encode())

    def _named(self, name: str) -> bool:
        return name in ("", self._export.name)

    def _export_name(self, data: bytes) -> bytes:
        """The one option without a reply: the export's size and flags, or no more connection."""
        try:
            name = _text(data)
        except Malformed as error:
            raise ProtocolError(f"export name is {error}") from None
        if not self._named(name):
            self.phase = Phase.CLOSED
            return b""
        self._begin(name)
        head = EXPORT_HEAD.pack(self._export.size, self._export.flags)
        return head + EXPORT_NAME_ZEROES if self._zeroes else head

    def _begin(self, name: str) -> None:
        self.phase = Phase.TRANSMISSION
        self.block_status = self.structured and self._context_export == name

    def _abort(self, data: bytes) -> bytes:
        self.phase = Phase.CLOSED
        return _reply(Option.ABORT, Reply.ACK)

    def _list(self, data: bytes) -> bytes:
        Fields(data).end()
        name = string(self._export.name) + self._export.description.encode()
        return _reply(Option.LIST, Reply.SERVER, name) + _reply(Option.LIST, Reply.ACK)

    def _info(self, data: bytes) -> bytes:
        return self._describe(Option.INFO, data)[1]

    def _go(self, data: bytes) -> bytes:
        name, answer = self._describe(Option.GO, data)
        if name is not None:
            self._begin(name)
        return answer

    def _describe(self, option: Option, data: bytes) -> tuple[str | None, bytes]:
        """The name of the export asked for, None if there is none of that name, and the answer."""
        fields = Fields(data)
        name = fields.string()
        wanted = [fields.u16() for _ in range(fields.u16())]
        fields.end()
        if not self._named(name):
            return None, _reply(option, Reply.ERR_UNKNOWN, b"no such export")
        export = self._export
        sizes = (export.minimum_block, export.preferred_block, export.maximum_payload)
        infos = [
            _INFO_EXPORT.pack(Info.EXPORT, export.size, export.flags),
            _INFO_BLOCK_SIZE.pack(Info.BLOCK_SIZE, *sizes),
        ]
        if Info.NAME in wanted:
            infos.append(U16.pack(Info.NAME) + export.name.encode())
        if Info.DESCRIPTION in wanted and export.description:
            infos.append(U16.pack(Info.DESCRIPTION) + export.description.encode())
        replies = [_reply(option, Reply.INFO, info) for info in infos]
        return name, b"".join([*replies, _reply(option, Reply.ACK)])

    def _structured_reply(self, data: bytes) -> bytes:
        Fields(data).end()
        self.structured = True
        return _reply(Option.STRUCTURED_REPLY, Reply.ACK)

    def _list_meta_context(self, data: bytes) -> bytes:
        option = Option.LIST_META_CONTEXT
        name, queries = self._queries(data)
        if not self._named(name):
            return _reply(option, Reply.ERR_UNKNOWN, b"no such export")
        found = not queries or not {"base:", BASE_ALLOCATION}.isdisjoint(queries)
        return self._contexts(option, found)

    def _set_meta_context(self, data: bytes) -> bytes:
        option = Option.SET_META_CONTEXT
        self._context_export = None
        name, queries = self._queries(data)
        if not self.structured:
            return _reply(option, Reply.ERR_INVALID, b"needs structured replies")
        if not self._named(name):
            return _reply(option, Reply.ERR_UNKNOWN, b"no such export")
        found = BASE_ALLOCATION in queries
        if found:
            self._context_export = name
        return self._contexts(option, found)

    @staticmethod
    def _contexts(option: Option, found: bool) -> bytes:
        context = U32.pack(CONTEXT_ID) + BASE_ALLOCATION.encode()
        return (_reply(option, Reply.META_CONTEXT, context) if found else b"") + _reply(option, Reply.ACK)

    @staticmethod
    def _queries(data: bytes) -> tuple[str, list[str]]:
        fields = Fields(data)
        name = fields.string()
        count = fields.u32()
        if count > len(data) // 4:
            raise Malformed(f"{count} queries")
        queries = [fields.string() for _ in range(count)]
        fields.end()
        return name, queries


def _reply(option: int, kind: Reply, data: bytes = b"") -> bytes:
    return REPLY_HEAD.pack(OPTION_REPLY_MAGIC, option, kind, len(data)) + data
