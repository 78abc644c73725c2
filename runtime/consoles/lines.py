"""All lines of a machine: what its kernel is given, and the tasks that pass on between its lines and the host."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import trio

from runtime.consoles.channels.base import Channel, Surroundings, Tap, Xterm, failed
from runtime.consoles.channels.opening import opened, sides
from runtime.consoles.hostend import HostEnd, Reader
from runtime.consoles.sharing import Sharing
from runtime.consoles.spec import BOOT_CONSOLE, Line, LineKind, Pair, Specs
from umlfs.errors import UsageError

if TYPE_CHECKING:
    from runtime.consoles.tty_log import TtyLog

DRAIN_SECONDS: Final = 2.0
"""How long channels may take to pass on the last that the guest said."""
FIRST_CONSOLE: Final = Line(LineKind.CONSOLE, 1)
"""Where a login prompt is, if there are several consoles."""


class Consoles:
    """The lines of one machine, as an async context around the life of its kernel.

        async with Consoles(parse_all(["con0=log:boot.log", "con1=pts"]), umid="debian") as consoles:
            kernel = keeper.spawn([linux, *consoles.arguments], pass_fds=consoles.inherited)
            await keeper.wait(kernel)

    Entering opens every channel: UmlError if one cannot be opened. Leaving passes on what was said last, as far as
    anybody takes it within `DRAIN_SECONDS`, and gives back all that was opened. A kernel that boots again gets the
    same words and descriptors again.
    """

    def __init__(
        self,
        specs: Specs,
        *,
        umid: str = "uml",
        xterm: Xterm | None = None,
        log_directory: Path | None = None,
        directory: Path | None = None,
    ) -> None:
        """`umid` is shown in titles; `log_directory` is where a terminal log of each line goes (`tty_log`);
        `directory`, for this user alone, is where our sockets go, by default one in /tmp."""
        self.arguments: list[str] = []
        """The words for the kernel's command line."""
        self.inherited: list[int] = []
        """The descriptors that the kernel inherits, by these numbers."""
        self.ends: dict[Line, HostEnd] = {}
        """The lines that are served here, in order."""
        self._specs = specs
        self._umid = umid
        self._xterm = xterm or Xterm()
        self._log_directory = log_directory
        self._directory = directory
        self._descriptions: dict[Line, str] = {}
        self._channels: list[Channel] = []
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            self._open(stack)
            await stack.enter_async_context(self._running())
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    # What there is ----------------------------------------------------------------------------

    @property
    def preferred(self) -> Line:
        """The line that one who names none gets: the first console if there is one, else the boot console."""
        return FIRST_CONSOLE if FIRST_CONSOLE in self.ends else BOOT_CONSOLE

    @property
    def announcements(self) -> list[str]:
        """A sentence for each line that got a place of its own, as the kernel would say it."""
        return [
            f"{line.kind.heading} {line.number} assigned {'port' if text.startswith('port') else 'device'} '{place}'"
            for line, text in self._descriptions.items()
            for place in [text.partition(":")[2].partition(",")[0]]
            if text.startswith(("pts:", "port:"))
        ]

    def describe(self, line: Line) -> str:
        """What `config` answers about `line`: `pts:/dev/pts/3`, `port:6123`, `fd:0,fd:1`, `none`."""
        if line in self._descriptions:
            return self._descriptions[line]
        return str(self._specs.lines.get(line, self._specs.default(line.kind)) or "none")

    def attach(self, line: Line) -> contextlib.AbstractContextManager[Reader]:
        """Read along with `line`, from the oldest output that is kept. UsageError for a line that is not served."""
        return self.end(line).reader()

    def end(self, line: Line) -> HostEnd:
        """The host's end of `line`, for typing and resizing. UsageError for a line that is not served."""
        if line not in self.ends:
            raise UsageError(f"{line}: this machine has no such line", f"it has {', '.join(map(str, self.ends))}")
        return self.ends[line]

    def sharing(self) -> Sharing:
        """What serves the machine's socket `lines`; its `serve` is to be run as a task within this context."""
        return Sharing(self.ends, self.preferred)

    # Opening and closing ----------------------------------------------------------------------

    def _open(self, stack: contextlib.AsyncExitStack) -> None:
        directory = self._directory
        if directory is None:
            # A socket's path must not be long, as $TMPDIR may be.
            directory = Path(tempfile.mkdtemp(prefix="umlfs-lines-", dir="/tmp"))
            stack.callback(shutil.rmtree, directory, ignore_errors=True)
        surroundings = Surroundings(self._umid, directory, self._xterm)
        for line, pair in self._specs.served().items():
            log = self._open_log(stack, line)
            end = self.ends[line] = HostEnd(line, log)
            stack.callback(end.close)
            self.inherited.append(end.slave)
            self._open_channels(stack, pair, end, surroundings)
        self.arguments = [*self._defaults(), *(f"{line}=fd:{end.slave}" for line, end in self.ends.items())]

    def _open_log(self, stack: contextlib.AsyncExitStack, line: Line) -> TtyLog | None:
        if self._log_directory is None:
            return None
        from runtime.consoles.tty_log import TtyLog  # few machines keep one

        path = self._log_directory / str(line)
        try:
            log = TtyLog(path, line.device)
        except OSError as error:
            raise failed(path, error, "name a directory that you may write with tty_log_dir=DIR") from error
        stack.callback(log.close)
        return log

    def _open_channels(
        self, stack: contextlib.AsyncExitStack, pair: Pair, end: HostEnd, surroundings: Surroundings
    ) -> None:
        descriptions = []
        for spec, types, shows in sides(pair):
            tap = Tap(end, types, shows)
            description, channel = stack.enter_context(opened(spec, tap, surroundings))
            descriptions.append(description)
            if channel is not None:
                self._channels.append(channel)
        self._descriptions[end.line] = ",".join(descriptions)

    def _defaults(self) -> list[str]:
        """The words for the lines that are not served: they are nothing, or swallow all."""
        words = [f"{kind}={'null' if self._specs.default(kind) else 'none'}" for kind in LineKind]
        return words + [f"{line}=none" for line, pair in self._specs.lines.items() if pair is None]

    @contextlib.asynccontextmanager
    async def _running(self) -> AsyncIterator[None]:
        async with trio.open_nursery() as channels, trio.open_nursery() as ends:
            for end in self.ends.values():
                ends.start_soon(end.run)
            for channel in self._channels:
                channels.start_soon(channel.run)
            try:
                yield
            finally:
                channels.cancel_scope.deadline = trio.current_time() + DRAIN_SECONDS
                for end in self.ends.values():
                    end.finish()
