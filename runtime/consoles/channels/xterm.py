"""`xterm`: a terminal emulator of the host, started when the guest first says something on the line."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import subprocess
import sys
from typing import Final

import trio

from runtime.consoles.channels.base import Surroundings, Tap, accept, ignoring_departure, is_ours, refuse
from runtime.consoles.sharing import ClientConnection
from runtime.consoles.sharing_wire import Answer, ProtocolError
from runtime.host import own
from runtime.process.processor import free_to_choose
from umlfs.errors import UmlError
from umlfs.host.listening import unix_listener

DISPLAYS: Final = ("DISPLAY", "WAYLAND_DISPLAY")
START_SECONDS: Final = 30.0
"""How long an emulator may take to run our program in it."""
END_SECONDS: Final = 2.0
"""How long it may take to end when it is told to."""

logger = logging.getLogger(__name__)


class Window:
    """An emulator, its window, and our program in it, `runtime.consoles.attach`.

    When the window is closed, the next thing the guest says opens another. An emulator that cannot be started is
    reported once, and the line goes on without.
    """

    description = "xterm"

    def __init__(self, tap: Tap, surroundings: Surroundings) -> None:
        """UmlError if there is no such emulator, or no display to show a window on."""
        line, xterm = tap.end.line, surroundings.xterm
        if not any(os.environ.get(name) for name in DISPLAYS):
            raise UmlError(f"{line}=xterm: $DISPLAY is not set", f"write {line}=pts or {line}=port:N")
        if shutil.which(xterm.emulator) is None:
            way_out = "name one that is installed with xterm=EMULATOR,-T,-e"
            raise UmlError(f"{line}=xterm: there is no program {xterm.emulator}", way_out)
        self._tap = tap
        self._shown = 0
        """How much the guest had said when the last window was closed."""
        self._process: subprocess.Popen[bytes] | None = None
        self._stack = contextlib.ExitStack()
        path = surroundings.directory / f"xterm-{line}"
        listener = self._stack.enter_context(unix_listener(path))
        self._listener = trio.socket.from_stdlib_socket(listener)
        title = f"{line.kind.heading} #{line.number} ({surroundings.umid})"
        program = own.module("runtime.consoles.attach", str(path))
        self._command = [xterm.emulator, xterm.title, title, xterm.execute, *program]

    def close(self) -> None:
        """Close the window. Blocks until the emulator has ended, `END_SECONDS` at most."""
        self._end_process()
        self._listener.close()
        self._stack.close()

    async def run(self) -> None:
        """A window whenever there is something to show, until the line has ended."""
        end = self._tap.end
        while True:
            while end.said == self._shown and not end.ended:
                await end.wait_for_output()
            if end.ended or not await self._show_window():
                return

    async def _show_window(self) -> bool:
        """One window, until it is closed. False if it did not come to that."""
        try:
            self._start()
        except OSError as error:
            logger.warning("%s: %s cannot be started: %s", self._tap.end.line, self._command[0], error.strerror)
            return False
        client = await self._client()
        if client is None:
            logger.warning("%s: %s shows no window", self._tap.end.line, self._command[0])
            self._end_process()
            return False
        with client, ignoring_departure():
            await self._converse(ClientConnection(client))
        self._shown = self._tap.end.said
        with trio.move_on_after(END_SECONDS):
            await self._wait_for_process()
        self._end_process()
        return True

    def _start(self) -> None:
        # Our program finds the project where we found it. A session of its own: Ctrl-C of `uml boot` is not for it.
        path = os.pathsep.join(filter(None, sys.path))
        null = subprocess.DEVNULL
        with free_to_choose():
            self._process = subprocess.Popen(
                self._command,
                stdin=null,
                stdout=null,
                stderr=null,
                env={**os.environ, "PYTHONPATH": path},
                start_new_session=True,
            )

    async def _client(self) -> trio.socket.SocketType | None:
        """Our program in the emulator, connected; None if it does not come to that."""
        client = None
        with trio.move_on_after(START_SECONDS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch, nursery.cancel_scope)
                client = await self._accept()
                nursery.cancel_scope.cancel()
        return client

    async def _watch(self, scope: trio.CancelScope) -> None:
        """Cancel when the emulator has failed. Some end well at once: one that runs already opens the window."""
        await self._wait_for_process()
        if self._process is not None and self._process.poll():
            scope.cancel()

    async def _accept(self) -> trio.socket.SocketType:
        while True:
            client = await accept(self._listener)
            if is_ours(client):
                return client
            refuse(client, b"")

    async def _converse(self, connection: ClientConnection) -> None:
        line = self._tap.end.line
        with contextlib.suppress(ProtocolError):
            await connection.greeting()
            await connection.send(Answer(str(line), writer=True).encode())
            self._tap.end.resize(*connection.size)
            await connection.serve(self._tap, lambda: True)

    async def _wait_for_process(self) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        pidfd = os.pidfd_open(self._process.pid)
        try:
            await trio.lowlevel.wait_readable(pidfd)
        finally:
            os.close(pidfd)

    def _end_process(self) -> None:
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(END_SECONDS)
                return
