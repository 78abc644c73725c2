"""A command in a throwaway guest that has the caller's own streams, terminal and signals."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial

import trio

from runtime.command.throwaway import TimeLimitError
from runtime.machine.control import Job, streams_word
from runtime.machine.machine import TERMINAL, Machine, Options
from runtime.tty.caller import END_SECONDS, ENDING, PASSED_ON
from runtime.tty.streams import Descriptor, are_same, is_null

Streams = tuple[Descriptor | None, Descriptor | None, Descriptor | None]


@contextlib.contextmanager
def standard_streams() -> Iterator[Streams]:
    """Descriptors 0 to 2: None for /dev/null, the same one twice if output and errors go to the same place."""
    with contextlib.ExitStack() as stack:

        def opened(number: int) -> Descriptor | None:
            if is_null(number):
                return None
            return stack.enter_context(contextlib.closing(Descriptor(number, write=number > 0)))

        stdout = opened(1)
        yield opened(0), stdout, stdout if are_same(1, 2) else opened(2)


def how(on_terminal: bool) -> str:
    """What the agent is told of the streams that a command gets which is run now."""
    if on_terminal:
        return f"/dev/tty{TERMINAL}"
    stdin, stdout = (None if is_null(number) else number for number in (0, 1))
    return streams_word(stdin, stdout, stdout if are_same(1, 2) else None if is_null(2) else 2)


class Foreground:
    """One run. `signalled` is the signal that ended it, if one did."""

    def __init__(
        self,
        options: Options,
        timeout: float | None,
        afterwards: Callable[[Machine], Awaitable[None]] | None = None,
        *,
        standing: Machine | None = None,
        beside: Callable[[Machine], AbstractAsyncContextManager[None]] | None = None,
    ) -> None:
        """`options.terminal` says whether the command gets a terminal or pipes; `timeout` is in seconds. `afterwards`
        is called when the command has ended, before its guest does. With a `standing` machine, which is running and
        stays its owner's, none is booted. The command runs within what `beside` makes."""
        self.options = options
        self.timeout = timeout
        self._afterwards = afterwards
        self._standing = standing
        self._beside = beside
        self._job: Job | None = None
        self._killed: int | None = None
        self._scope = trio.CancelScope()

    async def run(
        self,
        command: Sequence[str],
        *,
        directory: str | None = None,
        environment: Mapping[str, str] | None = None,
        user: str | None = None,
    ) -> int:
        """The exit status of `command`; 128 + N if signal N made us end the guest. UmlError as for `run`."""
        status: int | None = None
        on_terminal = self.options.terminal
        with trio.move_on_after(float("inf") if self.timeout is None else self.timeout) as limit:
            with self._scope, trio.open_signal_receiver(*PASSED_ON) as signals:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._pass_on, signals, nursery)
                    async with self._machine() as machine, self._within(machine):
                        start = partial(machine.start, command, directory=directory, environment=environment, user=user)
                        status = await (self._on_terminal(machine, start) if on_terminal else self._on_streams(start))
                        if self._afterwards is not None:
                            await self._afterwards(machine)
                    nursery.cancel_scope.cancel()
        if self._killed is not None:
            return 128 + self._killed
        if limit.cancelled_caught:
            raise TimeLimitError(self.timeout or 0)
        assert status is not None
        return status

    def _machine(self) -> AbstractAsyncContextManager[Machine]:
        return Machine(self.options) if self._standing is None else contextlib.nullcontext(self._standing)

    def _within(self, machine: Machine) -> AbstractAsyncContextManager[None]:
        return contextlib.nullcontext() if self._beside is None else self._beside(machine)

    def kill(self, number: int) -> None:
        """End the run as signal `number` would."""
        self._kill(number)

    async def _pass_on(self, signals: AsyncIterator[int], nursery: trio.Nursery) -> None:
        seen: set[int] = set()
        async for number in signals:
            if self._job is None or number in seen:
                self._kill(number)
                continue
            seen.add(number)
            self._job.signal(PASSED_ON[signal.Signals(number)])
            if number in ENDING:
                nursery.start_soon(self._kill_later, number)

    async def _kill_later(self, number: int) -> None:
        await trio.sleep(END_SECONDS)
        self._kill(number)

    def _kill(self, number: int) -> None:
        """End the guest because of signal `number`."""
        self._killed = number
        self._scope.cancel()

    async def _on_streams(self, start: Callable[..., Job]) -> int:
        """Run the command of `start`, a `Machine.start`, on the caller's own streams."""
        with standard_streams() as (stdin, stdout, stderr):
            self._job = start(stdin=stdin, stdout=stdout, stderr=stderr)
            return await self._job.wait()

    async def _on_terminal(self, machine: Machine, start: Callable[..., Job]) -> int:
        from runtime.tty import terminal

        line = machine.terminal
        assert line is not None
        async with terminal.lent(line, self._kill):
            self._job = start(terminal=TERMINAL)
            status = await self._job.wait()
        return status
