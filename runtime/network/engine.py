"""A program that stands behind a card: started, watched, started again when it dies, ended with its machine."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Final

import trio

from runtime.process.keeper import Keeper
from umlfs.errors import UmlError
from umlfs.host.programs import run_program

START_SECONDS: Final = 10.0
"""How long an engine may take to be there. A thousand times what it takes."""
POLL_SECONDS: Final = 0.002
SAID_MAX: Final = 4096
"""Bytes of what it says that are kept."""
SHORT_LIFE_SECONDS: Final = 1.0
PAUSE_SECONDS: Final = 0.5
"""Before an engine is started again that lived so shortly."""
TRIES: Final = 10
"""An engine that lives so shortly so often in a row is given up."""


@dataclass(slots=True)
class Engine:
    """One program. `run` is its whole life, and that of those that take its place."""

    name: str
    keeper: Keeper
    command: Callable[[], Sequence[str | os.PathLike[str]]]
    """What to start; called anew each time."""
    socket: Path
    """Where the kernel finds it. It is removed before each start."""
    started: Callable[[], Awaitable[None]]
    """Done when it has been started, each time; cancelled when it ends meanwhile."""
    lost: Callable[[], Awaitable[None]]
    """Done when another has taken its place."""
    tell: Callable[[str], None]
    descriptors: Sequence[int] = ()
    said: bytearray = field(default_factory=bytearray)
    """The end of what it said."""
    process: subprocess.Popen[bytes] | None = None
    listening: trio.Event = field(default_factory=trio.Event)
    """The kernel may connect, or there is a `failure`."""
    failure: UmlError | None = None

    async def run(self) -> None:
        """Start it, and again whenever it ends, until cancelled or the machine is over."""
        short_lives = 0
        while not self.keeper.closed and short_lives < TRIES:
            began = trio.current_time()
            first = not self.listening.is_set()
            await self._live(first)
            if self.keeper.closed or (first and self.failure):
                return
            is_short = trio.current_time() - began < SHORT_LIFE_SECONDS
            short_lives = short_lives + 1 if is_short else 0
            self.tell(f"{self.name} ended ({self.why()}); it is started again")
            await trio.sleep(PAUSE_SECONDS if short_lives > 1 else 0)
        self.tell(f"{self.name} does not stay up ({self.why()}): the guest has no network")

    async def _live(self, first: bool) -> None:
        """From the start of the program to its end."""
        self.socket.unlink(missing_ok=True)
        try:
            self.process = process = self._spawn()
        except UmlError as error:
            self._fail(error)
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._hear, process)
            nursery.start_soon(self._attend, first)
            await self.keeper.wait(process)
            nursery.cancel_scope.cancel()
        if not self.listening.is_set():
            self._fail(UmlError(f"{self.name} ended: {self.why()}"))

    def _spawn(self) -> subprocess.Popen[bytes]:
        environment = {"PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin", "LC_ALL": "C"}
        return self.keeper.spawn(
            self.command(),
            output=subprocess.PIPE,
            env=environment,
            pass_fds=self.descriptors,
            cwd=Path("/"),
            makes_group=False,
        )

    def _fail(self, error: UmlError) -> None:
        self.failure = error
        self.listening.set()

    async def _hear(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stderr is not None
        async with trio.lowlevel.FdStream(os.dup(process.stderr.fileno())) as pipe:
            process.stderr.close()
            async for piece in pipe:
                self.said += piece
                del self.said[:-SAID_MAX]
        await trio.sleep_forever()

    async def _attend(self, first: bool) -> None:
        await appearing(self.socket)
        self.socket.chmod(0o666)  # the directory is the machine's; its kernel may be another user
        self.listening.set()
        if not first:
            await self.lost()
        await self.started()

    async def ready(self) -> None:
        """Wait until the kernel may connect. UmlError if it did not come so far."""
        with trio.move_on_after(START_SECONDS):
            await self.listening.wait()
        if self.failure is not None:
            raise self.failure
        if not self.listening.is_set():
            raise UmlError(f"{self.name} was not there within {START_SECONDS:g} s", "look at what else the host does")

    def why(self) -> str:
        """How it ended, or the last that it said, in one line."""
        status = self.process.returncode if self.process is not None else None
        if status is not None and status < 0:
            return f"killed by signal {-status}"
        lines = self.said.decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"


def slirp_jail() -> tuple[list[str], list[str]]:
    """What to put before slirp4netns, and its options, for a jail of its own: a system call filter, and where this user
    may make one a mount namespace."""
    if os.geteuid() == 0:
        return [], ["--enable-sandbox", "--enable-seccomp"]
    if user_namespaces():
        return ["unshare", "--user", "--map-root-user", "--"], ["--enable-sandbox", "--enable-seccomp"]
    return [], ["--enable-seccomp"]


async def appearing(path: Path, seconds: float = POLL_SECONDS) -> None:
    """Wait until there is something at `path`, looking every so often."""
    while True:
        if os.path.exists(path):  # noqa: ASYNC240 (a directory in memory)
            return
        await trio.sleep(seconds)


async def connect(connection: socket.socket, path: Path) -> None:
    """Connect to an engine whose socket is there, and which will listen there in a moment. OSError."""
    deadline = trio.current_time() + START_SECONDS
    while True:
        try:
            connection.connect(os.fspath(path))
            return
        except ConnectionRefusedError:
            if trio.current_time() > deadline:
                raise
        await trio.sleep(POLL_SECONDS)


@cache
def user_namespaces() -> bool:
    """Whether this user may make user namespaces, with networks in them. Runs a short process."""
    words = ["unshare", "--user", "--map-root-user", "--net", "true"]
    try:
        return run_program(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0
    except OSError:
        return False
