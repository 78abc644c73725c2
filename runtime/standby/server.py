"""The standby itself: waits for clients, and forks for each."""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from runtime.standby.loaded import Files, loaded
from runtime.standby.worker import Commands, work
from umlfs.errors import UmlError
from umlfs.host.listening import remove_stale, unix_listener


@contextlib.contextmanager
def standby(path: Path, commands: Commands, orphans: Sequence[Path] = ()) -> Iterator[None]:
    """A standby that listens at `path`, for as long as this process is in the context; it removes the sockets
    `orphans`, and the directory of `path`, should this process not have done so.

    To be entered while this process has no other thread and no event loop. A standby that cannot be had is none.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        _detach(path, commands, orphans, reader)
    os.close(reader)
    os.waitpid(child, 0)
    try:
        yield
    finally:
        os.close(writer)


def _detach(path: Path, commands: Commands, orphans: Sequence[Path], lifeline: int) -> NoReturn:
    """Go on as a process that nobody waits for."""
    status = 1
    try:
        if os.fork():
            os._exit(0)
        _serve(path, commands, orphans, lifeline)
        status = 0
    except UmlError:
        status = 1  # another one listens there
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _serve(path: Path, commands: Commands, orphans: Sequence[Path], lifeline: int) -> None:
    keep_open({lifeline})
    for name in commands.modules:
        import_module(name)
    # What is never looked at is never copied.
    gc.collect()
    gc.freeze()
    try:
        with unix_listener(path) as listener:
            _Server(listener, lifeline, commands).run()
    finally:
        for orphan in orphans:
            remove_stale(orphan)
        with contextlib.suppress(OSError):
            path.parent.rmdir()


def keep_open(kept: set[int]) -> None:
    """Close all descriptors but those; the standard ones are /dev/null."""
    null = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(null, number)
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) not in kept:
            with contextlib.suppress(OSError):  # the one that listed the directory
                os.close(int(name))


@dataclass(slots=True, eq=False)
class _Worker:
    """A command under way."""

    pid: int
    pidfd: int
    connection: socket.socket
    heard: bool = True
    """The client is still there."""


class _Server:
    def __init__(self, listener: socket.socket, lifeline: int, commands: Commands) -> None:
        self._listener = listener
        self._lifeline = lifeline
        self._commands = commands
        self._files: Files = loaded()
        self._poll = select.poll()
        self._react: dict[int, Callable[[], None]] = {}
        self._workers: set[_Worker] = set()
        self._ended = False

    def run(self) -> None:
        """Until the lifeline ends, and the commands under way have."""
        self._on(self._listener.fileno(), select.POLLIN, self._accept)
        self._on(self._lifeline, select.POLLIN, self._end)
        while self._workers or not self._ended:
            # One at a time: what reacts may close others, and open new ones of the same number.
            self._react[self._poll.poll()[0][0]]()

    def _on(self, number: int, events: int, react: Callable[[], None]) -> None:
        self._react[number] = react
        self._poll.register(number, events)

    def _off(self, number: int) -> None:
        del self._react[number]
        self._poll.unregister(number)

    def _end(self) -> None:
        self._ended = True
        self._off(self._lifeline)
        self._off(self._listener.fileno())

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        parent = os.getpid()
        pid = os.fork()
        if not pid:
            self._become_worker(connection, parent)
        worker = _Worker(pid, os.pidfd_open(pid), connection)
        self._workers.add(worker)
        self._on(worker.pidfd, select.POLLIN, lambda: self._reap(worker))
        self._on(connection.fileno(), select.POLLRDHUP, lambda: self._kill(worker))

    def _become_worker(self, connection: socket.socket, parent: int) -> NoReturn:
        status = 1
        try:
            number = connection.detach()
            keep_open({number})
            with socket.socket(fileno=number) as own:
                status = work(own, self._commands, self._files, parent)
            sys.stdout.flush()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)

    def _kill(self, worker: _Worker) -> None:
        """The client is gone: so would the command be, were it the client itself."""
        worker.heard = False
        self._off(worker.connection.fileno())
        signal.pidfd_send_signal(worker.pidfd, signal.SIGKILL)

    def _reap(self, worker: _Worker) -> None:
        status = os.waitstatus_to_exitcode(os.waitpid(worker.pid, 0)[1])
        if worker.heard:
            self._off(worker.connection.fileno())
            with contextlib.suppress(OSError):
                worker.connection.send(b"%d\n" % status, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        self._off(worker.pidfd)
        os.close(worker.pidfd)
        worker.connection.close()
        self._workers.discard(worker)
