"""`con<N>=IN[,OUT]` and `ssl<N>=…`: the words that say what a guest's lines are on the host. Nothing is opened.

As `arch/um/drivers/line.c` and `chan_kern.c` of Linux 6.1 parse them, but for what they would silently ignore, and with
two channels of ours (`log:`, `unix:`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from umlfs.errors import UsageError

LOOPBACK: Final = "127.0.0.1"
ARGUMENTS: Final = {
    "null": "",
    "fd": "N",
    "pty": "",
    "pts": "",
    "tty": "/dev/ttyN",
    "port": "[ADDRESS:]N",
    "xterm": "",
    "log": "FILE",
    "unix": "SOCKET",
}
"""Every channel and what follows its name and a colon; nothing if nothing does."""
CHANNELS: Final = ", ".join(f"{name}:{argument}" if argument else name for name, argument in ARGUMENTS.items())
DESCRIPTOR_MAX: Final = 1 << 20
PORT_MAX: Final = 65535

_WORD: Final = re.compile(r"(con|ssl)([^=]*)=(.*)\Z", re.DOTALL)
_NUMBER: Final = re.compile(r"(?:0|[1-9][0-9]{0,6})\Z", re.ASCII)


class LineKind(StrEnum):
    """Virtual consoles or serial lines."""

    CONSOLE = "con"
    SERIAL = "ssl"

    @property
    def lines(self) -> int:
        """How many the kernel has."""
        return 16 if self is LineKind.CONSOLE else 64

    @property
    def heading(self) -> str:
        """What the kernel calls one."""
        return "Virtual Console" if self is LineKind.CONSOLE else "Serial Line"


@dataclass(frozen=True, slots=True, order=True)
class Line:
    """One line of a guest: `/dev/tty<number>` or `/dev/ttyS<number>`."""

    kind: LineKind
    number: int

    @property
    def device(self) -> int:
        """The guest's device number, as its kernel packs it into 16 bits: major 4 and the minor."""
        return 4 << 8 | (self.number if self.kind is LineKind.CONSOLE else 64 + self.number)

    def __str__(self) -> str:
        return f"{self.kind}{self.number}"

    @classmethod
    def parse(cls, text: str) -> Line:
        """`con1`, `ssl0`. UsageError for what names no line."""
        line = _line(f"{text}=", text[:3], text[3:]) if text[:3] in list(LineKind) else None
        if line is None:
            raise UsageError(f"{text}: not the name of a line", "lines are con0 to con15 and ssl0 to ssl63")
        return line


BOOT_CONSOLE: Final = Line(LineKind.CONSOLE, 0)
"""`/dev/console` of the guest: where the kernel's log goes. The kernel opens it itself, and aborts without it."""


@dataclass(frozen=True, slots=True)
class ChannelSpec:
    """What a line is on the host."""

    name: str
    """One of `ARGUMENTS`."""
    argument: str = ""

    def __str__(self) -> str:
        return f"{self.name}:{self.argument}" if self.argument else self.name

    @property
    def address(self) -> tuple[str, int]:
        """Where a `port` listens; port 0 is any free one."""
        host, _, port = self.argument.rpartition(":")
        return host.strip("[]") or LOOPBACK, int(port)


NULL: Final = ChannelSpec("null")


@dataclass(frozen=True, slots=True)
class Pair:
    """Where a line's input comes from, and where its output goes: often the same."""

    input: ChannelSpec = NULL
    output: ChannelSpec = NULL

    def __str__(self) -> str:
        return str(self.input) if self.input == self.output else f"{self.input},{self.output}"


@dataclass(frozen=True, slots=True)
class Setting:
    """One word of a command line."""

    kind: LineKind
    number: int | None
    """None for the default of all that are not named."""
    pair: Pair | None
    """None for `none`: there is no such line."""
    note: str = ""
    """What to tell the person: the word is of an older form, and how it is taken."""


@dataclass(frozen=True, slots=True)
class Specs:
    """What all lines of a guest are."""

    lines: Mapping[Line, Pair | None] = field(default_factory=dict)
    """Those that are named; None for `none`."""
    defaults: Mapping[LineKind, Pair | None] = field(default_factory=dict)
    """For the others; a kind that is not in it has `null`."""
    notes: tuple[str, ...] = ()

    def default(self, kind: LineKind) -> Pair | None:
        """What lines of that kind are that are not named."""
        return self.defaults.get(kind, Pair())

    def served(self) -> dict[Line, Pair]:
        """The lines that need something of the host, in order. That is always so for the boot console: without a place
        to write to the kernel would complain, or abort."""
        found = {BOOT_CONSOLE: self.default(LineKind.CONSOLE) or Pair()}
        for kind in LineKind:
            default = self.default(kind)
            if default is not None and default != Pair():
                found.update({Line(kind, number): default for number in range(kind.lines)})
        found.update({line: pair for line, pair in self.lines.items() if pair is not None})
        return {line: found[line] for line in sorted(found) if self.lines.get(line, found[line]) is not None}


def parse_all(words: Iterable[str]) -> Specs:
    """What a command line says of lines; of two words for the same the later counts. UsageError."""
    lines: dict[Line, Pair | None] = {}
    defaults: dict[LineKind, Pair | None] = {}
    notes = []
    for word in words:
        setting = parse(word)
        if setting.number is None:
            defaults[setting.kind] = setting.pair
        else:
            lines[Line(setting.kind, setting.number)] = setting.pair
        if setting.note:
            notes.append(setting.note)
    specs = Specs(lines, defaults, tuple(notes))
    _check_inputs(specs)
    return specs


def parse(word: str) -> Setting:
    """One word: `con1=fd:0,fd:1`, `ssl=none`. UsageError for what cannot be meant."""
    found = _WORD.match(word)
    if found is None:
        raise UsageError(f"{word}: not a console or serial line", "write con<N>=CHANNEL or ssl<N>=CHANNEL")
    prefix, number, text = found.groups()
    kind = LineKind(prefix)
    line = _line(word, prefix, number) if number else None
    if text == "none":
        if line == BOOT_CONSOLE:
            raise UsageError(f"{word}: the kernel does not start without its first console", "write con0=null")
        return Setting(kind, line.number if line else None, None)
    old = [part for part in text.split(",") if part.startswith("/dev/")]
    modern = ",".join(f"tty:{part}" if part in old else part for part in text.split(","))
    note = f"{word}: an old form, taken as {prefix}{number}={modern}" if old else ""
    return Setting(kind, line.number if line else None, _pair(word, modern), note)


def _line(word: str, prefix: str, number: str) -> Line:
    kind = LineKind(prefix)
    if not _NUMBER.match(number):
        raise UsageError(f"{word}: Couldn't parse device number", f"{prefix}0 to {prefix}{kind.lines - 1} exist")
    if int(number) >= kind.lines:
        raise UsageError(f"{word}: Device number out of range", f"{prefix}0 to {prefix}{kind.lines - 1} exist")
    return Line(kind, int(number))


def _pair(word: str, text: str) -> Pair:
    parts = text.split(",")
    if len(parts) > 2:
        raise UsageError(f"{word}: more than an input and an output", "no channel's name or path holds a comma")
    channels = [_channel(word, part) for part in parts]
    pair = Pair(channels[0], channels[-1])
    if pair.input.name == "log":
        if len(parts) > 1:
            raise UsageError(f"{word}: a log takes output only", f"for example null,{pair.output}")
        return Pair(NULL, pair.output)
    return pair


def _channel(word: str, text: str) -> ChannelSpec:
    name, colon, argument = text.partition(":")
    if name not in ARGUMENTS:
        from difflib import get_close_matches  # few have a typo to wait for

        near = get_close_matches(name, ARGUMENTS, n=1)
        way_out = f"did you mean '{near[0]}'?" if near else f"channels are {CHANNELS} and none"
        raise UsageError(f"{word}: '{name}' is no channel", way_out)
    expected = ARGUMENTS[name]
    if not expected and colon:
        raise UsageError(f"{word}: nothing follows '{name}'", f"write {name}")
    if expected and not argument:
        raise UsageError(f"{word}: '{name}' without its {expected}", f"write {name}:{expected}")
    if "\0" in argument:
        raise UsageError(f"{word}: no path holds a NUL")
    if name == "fd":
        _check_number(word, argument, DESCRIPTOR_MAX, "descriptor")
    if name == "port":
        _check_port(word, argument)
    return ChannelSpec(name, argument)


def _check_number(word: str, text: str, limit: int, what: str) -> None:
    if not _NUMBER.match(text) or int(text) > limit:
        raise UsageError(f"{word}: '{text}' is no {what} number", f"give one from 0 to {limit}")


def _check_port(word: str, text: str) -> None:
    host, colon, port = text.rpartition(":")
    _check_number(word, port, PORT_MAX, "port")
    if not colon:
        return
    try:
        import ipaddress  # only ports have one

        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        raise UsageError(f"{word}: '{host}' is no address", "for example port:0.0.0.0:9000, port:[::1]:9000") from None
    if (address.version == 6) != (host.startswith("[") and host.endswith("]")):
        raise UsageError(f"{word}: '{host}' is no address", "an IPv6 address stands in brackets, an IPv4 one does not")


def _check_inputs(specs: Specs) -> None:
    """UsageError if two lines would read from the same place: each would get a part of what is typed."""
    readers: dict[ChannelSpec, Line] = {}
    for line, pair in specs.served().items():
        if pair.input.name in ("fd", "tty", "unix"):
            other = readers.setdefault(pair.input, line)
            if other != line:
                raise UsageError(f"{line}={pair}: {other} has its input from {pair.input}", "give each its own")
