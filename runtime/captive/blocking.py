"""Captive guests for programs without an event loop: every call blocks its thread, and may come from any thread."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, Unpack

import trio

from runtime.captive import guest as trios
from runtime.captive.accounts import Account
from runtime.captive.events import Event
from runtime.captive.files import Files as TrioFiles
from runtime.captive.guest import RunOptions, StartOptions
from runtime.captive.guest import User as TrioUser
from runtime.captive.held import Held, following, in_trio
from runtime.captive.portal import Portal
from runtime.captive.process import Process as TrioProcess
from umlfs.filesystem import Attr

P = ParamSpec("P")
T = TypeVar("T")


class _Through:
    """Calls through a portal."""

    def __init__(self, portal: Portal) -> None:
        self._portal = portal

    def _call(self, function: Callable[P, Awaitable[T]], *args: P.args, **options: P.kwargs) -> T:
        return self._portal.call(partial(function, *args, **options))


class Process(_Through):
    """See `runtime.captive.process.Process`."""

    def __init__(self, portal: Portal, process: TrioProcess) -> None:
        super().__init__(portal)
        self._process = process

    def send(self, data: bytes) -> None:
        """Write to its input, and wait until all is taken."""
        self._call(self._process.stdin.send_all, data)

    def end_input(self) -> None:
        self._call(self._process.stdin.aclose)

    def receive(self, max_bytes: int | None = None) -> bytes:
        """Some of its output; nothing at the end."""
        return self._call(self._process.stdout.receive_some, max_bytes)

    def receive_error(self, max_bytes: int | None = None) -> bytes:
        """Some of its errors; nothing at the end."""
        return self._call(self._process.stderr.receive_some, max_bytes)

    def wait(self) -> int:
        return self._call(self._process.wait)

    def signal(self, name: str) -> None:
        self._call(in_trio(self._process.signal), name)

    def close(self) -> None:
        """End it, if it runs."""
        self._call(self._process.aclose)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Files(_Through):
    """See `runtime.captive.files.Files`."""

    def __init__(self, portal: Portal, files: TrioFiles) -> None:
        super().__init__(portal)
        self._files = files

    def read(self, path: str, **options: Any) -> bytes:
        return self._call(self._files.read, path, **options)

    def write(self, path: str, data: bytes, **options: Any) -> None:
        self._call(self._files.write, path, data, **options)

    def stat(self, path: str, *, follow: bool = True) -> Attr:
        return self._call(self._files.stat, path, follow=follow)

    def exists(self, path: str) -> bool:
        return self._call(self._files.exists, path)

    def listdir(self, path: str = "/") -> list[str]:
        return self._call(self._files.listdir, path)

    def walk(self, path: str = "/") -> Iterator[tuple[str, list[str], list[str]]]:
        found = self._files.walk(path)
        try:
            while (item := self._call(following, found)) is not None:
                yield item
        finally:
            self._call(found.aclose)

    def mkdir(self, path: str, mode: int = 0o755, **options: Any) -> None:
        self._call(self._files.mkdir, path, mode, **options)

    def remove(self, path: str) -> None:
        self._call(self._files.remove, path)

    def rename(self, path: str, to: str) -> None:
        self._call(self._files.rename, path, to)


class User(_Through):
    """See `runtime.captive.guest.User`."""

    def __init__(self, portal: Portal, user: TrioUser) -> None:
        super().__init__(portal)
        self._user = user

    def run(self, command: Sequence[str], **options: Unpack[RunOptions]) -> subprocess.CompletedProcess[bytes]:
        return self._call(self._user.run, command, **options)

    def start(self, command: Sequence[str], **options: Unpack[StartOptions]) -> Process:
        return Process(self._portal, self._call(in_trio(self._user.start), command, **options))


class Captive(User):
    """See `runtime.captive.guest.Captive`."""

    def __init__(self, portal: Portal, guest: trios.Captive) -> None:
        super().__init__(portal, guest)
        self._guest = guest
        self.files = Files(portal, guest.files)

    def as_user(self, user: str | Account) -> User:
        return User(self._portal, self._guest.as_user(user))

    def login(self, name: str, password: str | bytes) -> Account | None:
        return self._call(self._guest.login, name, password)

    def next_event(self) -> Event | None:
        """Wait for what happens to the guest; None once it has ended and all was told."""
        try:
            found: Event = self._call(self._guest.events.receive)
        except trio.EndOfChannel:
            return None
        return found

    def snapshot(self, directory: str = "") -> list[str]:
        return self._call(self._guest.snapshot, directory)

    def kill(self) -> None:
        self._call(in_trio(self._guest.kill))

    @property
    def alive(self) -> bool:
        return self._guest.alive

    @property
    def log(self) -> list[bytes]:
        return self._guest.log


@contextlib.contextmanager
def captive(**options: Any) -> Iterator[Captive]:
    """See `runtime.captive.guest.captive`. Methods of trees run in trio's thread (`async def`), or in others."""
    with Portal() as portal:
        held = Held(partial(trios.captive, **options))
        guest = portal.call(held.enter)
        try:
            yield Captive(portal, guest)
        finally:
            portal.call(held.leave)
