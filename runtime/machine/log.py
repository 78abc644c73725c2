"""The kernel's log, as it comes out of its console."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

import trio

from umlfs.errors import UmlError

LINES: Final = 400
"""Lines that are kept."""
LINE_MAX: Final = 4096
"""Bytes of a line that are kept."""
SHOWN: Final = 15
"""Lines that an error shows."""
PANIC: Final = b"Kernel panic"
RESTARTS: Final = (b"reboot: Restarting system", b"sysrq: Resetting")
ENDS: Final = (PANIC, b"reboot: System halted", b"reboot: Power down", b"sysrq: Power Off")
_NO_PTRACE: Final = b"ptrace: Operation not permitted"
"""Of a host that does not let the kernel trace its children, in its first moments."""
_ALLOW: Final = (
    "'uml doctor' says what does; docker and podman allow it by --cap-add SYS_PTRACE --security-opt seccomp=unconfined"
)
_NO_LINE: Final = (b"setup_one_line failed for device ", b"configured as 'none'")
"""How the kernel's word for each of 79 consoles and serial lines that a machine does not have begins and ends."""


class KernelLog:
    """The last lines of the log. A guest may write what it likes: what is kept is bounded."""

    def __init__(self, on_line: Callable[[bytes], None] | None = None) -> None:
        self.lines: deque[bytes] = deque(maxlen=LINES)
        self.count = 0
        """Of lines, those no longer kept among them."""
        self.complete = trio.Event()
        """The console is closed, and all that it said is here."""
        self.ending = trio.Event()
        """The kernel said that it ends, or starts again."""
        self._on_line = on_line
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Take what the console said next. A line that never ends is kept by its end."""
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest[-LINE_MAX:]
        self._add(lines)

    def finish(self) -> None:
        """The console says no more: what it said last is a line too."""
        if self._rest:
            self._add([self._rest])
            self._rest = b""
        self.complete.set()

    def _add(self, lines: Iterable[bytes]) -> None:
        for line in lines:
            line = line[:LINE_MAX].rstrip(b"\r")
            if line.startswith(_NO_LINE[0]) and line.endswith(_NO_LINE[1]):
                continue
            self.lines.append(line)
            self.count += 1
            if any(word in line for word in (*RESTARTS, *ENDS)):
                self.ending.set()
            if self._on_line is not None:
                self._on_line(self.lines[-1])

    async def keep(self, console: trio.abc.ReceiveStream) -> None:
        """Take all that comes from `console`, and close it."""
        async with console:
            async for chunk in console:
                self.feed(bytes(chunk))
        self.finish()

    @property
    def restarting(self) -> bool:
        """Whether the last that the kernel said is that it starts again."""
        return any(word in line for line in list(self.lines)[-SHOWN:] for word in RESTARTS)

    @property
    def panicked(self) -> bool:
        """Whether the kernel said that it panics."""
        return any(PANIC in line for line in self.lines)

    def failure(self, what: str) -> UmlError:
        """The error that `what` happened to the guest, with the end of the log, or with the meaning of that."""
        if any(_NO_PTRACE in line for line in self.lines):
            return UmlError("this host forbids ptrace, by which a kernel runs the processes of its guest", _ALLOW)
        tail = b"\n".join(self._end()).decode(errors="replace").expandtabs()
        way_out = "the end of the kernel's log is above; -v shows all of it" if tail else "the kernel said nothing"
        return UmlError(what, way_out, details=tail)

    def _end(self) -> list[bytes]:
        """The last lines; of a panic those around its reason, which a page of registers follows."""
        lines = list(self.lines)
        start = next((number for number, line in enumerate(lines) if PANIC in line), len(lines)) - SHOWN // 3
        return lines[max(0, min(start, len(lines) - SHOWN)) :][:SHOWN]
