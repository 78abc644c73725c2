"""The process that sees to it that a guest stands: without an event loop, so that it can fork."""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Final, NoReturn

from runtime.appliance.keeping import make_directory
from runtime.command.prepared import Prepared
from runtime.process import background
from runtime.standby.loaded import Files, loaded, unchanged
from runtime.standby.server import keep_open
from runtime.warm.guest import STALE, STANDS, TAKEN, Commands, stand
from runtime.warm.places import keeper_path, prolong
from umlfs.errors import UmlError
from umlfs.host.listening import unix_listener

VAIN_MAX: Final = 2
"""Guests in a row that ended before a command came: no more are tried."""
SECONDS_MAX: Final = 86400.0
WORD_SECONDS: Final = 1.0
WORD_MAX: Final = 64


def keep(prepared: Prepared, commands: Commands, seconds: float) -> None:
    """See to it that for `seconds` after the last command a guest stands for another like `prepared`; with 0, that none
    does. To be called without an event loop. UmlError."""
    if prolong(prepared.key, seconds) or not seconds:
        return

    prepared = prepared.absolute()

    def work(ready: Callable[[], None]) -> None:
        ready()
        keep_open(set())
        directory = make_directory()
        with contextlib.suppress(UmlError):  # another one is there by now
            try:
                with _ended_in_order(), unix_listener(keeper_path(prepared.key)) as listener:
                    _Keeper(listener, prepared, commands, seconds).run()
            finally:
                _remove(directory)

    background.start(work)


def _remove(directory: Path) -> None:
    """The directory of the sockets, if this was the last."""
    with contextlib.suppress(OSError):
        directory.rmdir()


@contextlib.contextmanager
def _ended_in_order() -> Iterator[None]:
    """SIGTERM and the like end the context."""

    def end(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, end)
    yield


@dataclass(slots=True)
class _Standing:
    """A guest that stands, or is about to."""

    pid: int
    lifeline: int
    """The end of a pipe: it ends with us, or when this is closed."""
    reports: int
    """The end of the pipe by which it tells that a command has come."""


@dataclass(slots=True)
class _Keeper:
    listener: socket.socket
    prepared: Prepared
    commands: Commands
    seconds: float
    vain: int = 0
    files: Files = field(default_factory=loaded)

    def run(self) -> None:
        """Until no command has come for the time, or guests do not come up."""
        gc.collect()
        gc.freeze()  # what is never looked at is never copied
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # those that serve are nobody's to wait for
        end = inf  # the time begins when a guest stands
        standing = self._boot()
        try:
            while self.vain <= VAIN_MAX and unchanged(self.files):
                watched = [self.listener.fileno(), standing.reports]
                left = None if end == inf else max(0.0, end - time.monotonic())
                ready, _, _ = select.select(watched, [], [], left)
                if not ready:
                    break
                if self.listener.fileno() in ready:
                    seconds = self._prolonged()
                    if seconds == 0:
                        break
                    end = max(end, time.monotonic() + seconds)
                if standing.reports in ready:
                    word = os.read(standing.reports, 1)
                    if word == STANDS:
                        end = time.monotonic() + self.seconds
                        continue
                    self.vain = 0 if word in (TAKEN, STALE) else self.vain + 1
                    end = inf
                    self._let_go(standing, wait=False)
                    standing = self._boot()
        finally:
            self._let_go(standing, wait=True)

    def _prolonged(self) -> float:
        """For how long a client wants guests to stand."""
        connection, _ = self.listener.accept()
        with connection:
            connection.settimeout(WORD_SECONDS)
            try:
                return min(float(connection.recv(WORD_MAX)), SECONDS_MAX)
            except (OSError, ValueError):
                return self.seconds

    def _boot(self) -> _Standing:
        lifeline, ours = os.pipe()
        reports, theirs = os.pipe()
        pid = os.fork()
        if not pid:
            os.close(ours)
            self._become_guest(lifeline, theirs)
        os.close(lifeline)
        os.close(theirs)
        return _Standing(pid, ours, reports)

    def _become_guest(self, lifeline: int, keeper: int) -> NoReturn:
        status = 1
        try:
            keep_open({lifeline, keeper})
            for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.setsid()
            stand(self.prepared, self.commands, self.files, lifeline, keeper)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)

    @staticmethod
    def _let_go(standing: _Standing, *, wait: bool) -> None:
        """Of a guest that serves, or that is to end; with `wait` until it has ended."""
        os.close(standing.lifeline)
        while wait and os.read(standing.reports, 1):
            pass
        os.close(standing.reports)
