"""The server's side of telnet (RFC 854, 855, 856, 857, 858, 1073): bytes in, keys and window sizes out.

The client is asked to be a plain terminal: we echo (the guest does), no line mode, eight bits both ways, and to tell
the size of its window. One that does not care for any of that, or that is no telnet client at all, works too.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum, auto
from typing import Final

SUBNEGOTIATION_MAX: Final = 64
"""Bytes of a subnegotiation that are kept: the one we know has 4. The rest is skipped, however long."""


class Command(IntEnum):
    """What may follow IAC."""

    EOF = 236
    SUSP = 237
    ABORT = 238
    SE = 240
    NOP = 241
    BRK = 243
    IP = 244
    AO = 245
    AYT = 246
    EC = 247
    EL = 248
    SB = 250
    WILL = 251
    WONT = 252
    DO = 253
    DONT = 254
    IAC = 255


class Option(IntEnum):
    """Options that we speak of."""

    BINARY = 0
    ECHO = 1
    SGA = 3
    NAWS = 31


OURS: Final = frozenset({Option.BINARY, Option.ECHO, Option.SGA})
"""What we do."""
THEIRS: Final = frozenset({Option.BINARY, Option.SGA, Option.NAWS})
"""What the client is asked to do."""
KEYS: Final = {
    Command.EOF: b"\x04",
    Command.SUSP: b"\x1a",
    Command.ABORT: b"\x1c",
    Command.BRK: b"\x1c",
    Command.IP: b"\x03",
    Command.EC: b"\x7f",
    Command.EL: b"\x15",
}
"""The keys that commands stand for."""
PRESENT: Final = b"\r\n[Yes]\r\n"
"""The answer to "are you there"."""

_IAC: Final = bytes([Command.IAC])
_CR: Final = 13
_LF: Final = 10
_REFUSAL: Final = {Command.WILL: Command.DONT, Command.DO: Command.WONT}


@dataclass(frozen=True, slots=True)
class Typed:
    """Keys for the guest."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Resized:
    """The client's window has another size."""

    rows: int
    columns: int


Event = Typed | Resized


class _State(Enum):
    DATA = auto()
    RETURN = auto()
    """After a CR, which a LF or NUL may follow that means nothing."""
    COMMAND = auto()
    OPTION = auto()
    PARAMETER = auto()
    PARAMETER_COMMAND = auto()


class Telnet:
    """One connection, without its socket. `replies` is to be sent after each call of `receive`, and at the start."""

    def __init__(self) -> None:
        self.replies = bytearray()
        """Protocol bytes for the client. Bounded by what was received: each command has one short answer at most."""
        self._state = _State.DATA
        self._verb = Command.NOP
        self._parameter = bytearray()
        self._ours: set[int] = set()
        self._theirs: set[int] = set()
        self._asked_ours = set(OURS)
        self._asked_theirs = set(THEIRS)
        self._after_return = False
        for option in sorted(OURS):
            self._say(Command.WILL, option)
        for option in sorted(THEIRS):
            self._say(Command.DO, option)

    # To the client ----------------------------------------------------------------------------

    def encode(self, data: bytes) -> bytes:
        """What the guest said, as it goes over the wire."""
        escaped = data.replace(_IAC, _IAC + _IAC)
        if Option.BINARY in self._ours or not escaped:
            return escaped
        # A CR that no LF follows is CR NUL; what follows the last one is not known yet.
        if self._after_return and escaped[0] != _LF:
            escaped = b"\0" + escaped
        self._after_return = escaped[-1] == _CR
        body, last = (escaped[:-1], escaped[-1:]) if self._after_return else (escaped, b"")
        return body.replace(b"\r", b"\r\0").replace(b"\r\0\n", b"\r\n") + last

    def take_replies(self) -> bytes:
        """The replies so far, which are the caller's to send now."""
        taken = bytes(self.replies)
        self.replies.clear()
        return taken

    def _say(self, verb: Command, option: int) -> None:
        self.replies += bytes([Command.IAC, verb, option])

    # From the client --------------------------------------------------------------------------

    def receive(self, data: bytes) -> list[Event]:
        """What `data`, wherever it was cut off, means."""
        events: list[Event] = []
        keys = bytearray()
        position = 0
        while position < len(data):
            if self._state is _State.DATA:
                position = self._plain(data, position, keys)
                continue
            if self._state is _State.PARAMETER:
                position = self._parameter_bytes(data, position)
                continue
            event = self._step(data[position], keys)
            position += 1
            if event is not None:
                if keys:
                    events.append(Typed(bytes(keys)))
                    keys.clear()
                events.append(event)
        if keys:
            events.append(Typed(bytes(keys)))
        return events

    def _plain(self, data: bytes, position: int, keys: bytearray) -> int:
        """Take keys up to what is special; returns where to go on."""
        end = data.find(_IAC, position)
        end = len(data) if end < 0 else end
        if Option.BINARY not in self._theirs:
            returned = data.find(b"\r", position, end)
            if returned >= 0:
                keys += data[position : returned + 1]
                self._state = _State.RETURN
                return returned + 1
        keys += data[position:end]
        if end < len(data):
            self._state = _State.COMMAND
        return end + 1

    def _step(self, byte: int, keys: bytearray) -> Event | None:
        """One byte that is not plain data."""
        match self._state:
            case _State.RETURN:
                self._state = _State.COMMAND if byte == Command.IAC else _State.DATA
                if byte not in (0, _LF, Command.IAC):
                    self._again(byte, keys)
            case _State.COMMAND:
                self._command(byte, keys)
            case _State.OPTION:
                self._state = _State.DATA
                self._negotiate(byte)
            case _:
                return self._end_parameter(byte, keys)
        return None

    def _again(self, byte: int, keys: bytearray) -> None:
        """A byte after a CR that belongs to what follows."""
        keys.append(byte)
        if byte == _CR:
            self._state = _State.RETURN

    def _command(self, byte: int, keys: bytearray) -> None:
        self._state = _State.DATA
        if byte == Command.IAC:
            keys.append(byte)
        elif byte == Command.SB:
            self._parameter.clear()
            self._state = _State.PARAMETER
        elif byte in (Command.WILL, Command.WONT, Command.DO, Command.DONT):
            self._verb = Command(byte)
            self._state = _State.OPTION
        elif byte == Command.AYT:
            self.replies += PRESENT
        else:
            keys += KEYS.get(byte, b"")  # type: ignore[call-overload]

    def _parameter_bytes(self, data: bytes, position: int) -> int:
        """Take what is in a subnegotiation; returns where to go on."""
        end = data.find(_IAC, position)
        if end < 0:
            end = len(data)
        else:
            self._state = _State.PARAMETER_COMMAND
        self._add_parameter(data[position : min(end, position + SUBNEGOTIATION_MAX)])
        return end + 1

    def _add_parameter(self, data: bytes) -> None:
        self._parameter += data[: SUBNEGOTIATION_MAX - len(self._parameter)]

    def _end_parameter(self, byte: int, keys: bytearray) -> Event | None:
        """After IAC within a subnegotiation: a doubled one is data, and whatever else ends it."""
        if byte == Command.IAC:
            self._state = _State.PARAMETER
            self._add_parameter(_IAC)
            return None
        if byte != Command.SE:
            self._command(byte, keys)
            return None
        self._state = _State.DATA
        size = bytes(self._parameter)
        if len(size) != 5 or size[0] != Option.NAWS or Option.NAWS not in self._theirs:
            return None
        columns, rows = int.from_bytes(size[1:3], "big"), int.from_bytes(size[3:5], "big")
        return Resized(rows, columns) if rows and columns else None

    def _negotiate(self, option: int) -> None:
        """Agree to what we know, refuse the rest; what changes nothing has no answer, or two polite ends would never
        be done."""
        if self._verb in (Command.WILL, Command.WONT):
            known, on, asked, yes, no = THEIRS, self._theirs, self._asked_theirs, Command.DO, Command.DONT
        else:
            known, on, asked, yes, no = OURS, self._ours, self._asked_ours, Command.WILL, Command.WONT
        answered = option in asked
        asked.discard(option)
        if self._verb in (Command.WONT, Command.DONT):
            if option in on:
                on.discard(option)
                self._say(no, option)
            return
        if option not in known:
            self._say(_REFUSAL[self._verb], option)
        elif option not in on:
            on.add(option)
            if not answered:
                self._say(yes, option)
