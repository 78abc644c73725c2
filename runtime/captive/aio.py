"""Captive guests for asyncio: trio runs in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
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
    """Calls through a portal. Cancelling the task cancels the call."""

    def __init__(self, portal: Portal) -> None:
        self._portal = portal

    async def _call(self, function: Callable[P, Awaitable[T]], *args: P.args, **options: P.kwargs) -> T:
        return await asyncio.wrap_future(self._portal.submit(partial(function, *args, **options)))


class Process(_Through):
    """See `runtime.captive.process.Process`."""

    def __init__(self, portal: Portal, process: TrioProcess) -> None:
        super().__init__(portal)
        self._process = process

    async def send(self, data: bytes) -> None:
        """Write to its input, and wait until all is taken."""
        await self._call(self._process.stdin.send_all, data)

    async def end_input(self) -> None:
        await self._call(self._process.stdin.aclose)

    async def receive(self, max_bytes: int | None = None) -> bytes:
        """Some of its output; nothing at the end."""
        return await self._call(self._process.stdout.receive_some, max_bytes)

    async def receive_error(self, max_bytes: int | None = None) -> bytes:
        """Some of its errors; nothing at the end."""
        return await self._call(self._process.stderr.receive_some, max_bytes)

    async def wait(self) -> int:
        return await self._call(self._process.wait)

    async def signal(self, name: str) -> None:
        await self._call(in_trio(self._process.signal), name)

    async def aclose(self) -> None:
        """End it, if it runs."""
        await self._call(self._process.aclose)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


class Files(_Through):
    """See `runtime.captive.files.Files`."""

    def __init__(self, portal: Portal, files: TrioFiles) -> None:
        super().__init__(portal)
        self._files = files

    async def read(self, path: str, **options: Any) -> bytes:
        return await self._call(self._files.read, path, **options)

    async def write(self, path: str, data: bytes, **options: Any) -> None:
        await self._call(self._files.write, path, data, **options)

    async def stat(self, path: str, *, follow: bool = True) -> Attr:
        return await self._call(self._files.stat, path, follow=follow)

    async def exists(self, path: str) -> bool:
        return await self._call(self._files.exists, path)

    async def listdir(self, path: str = "/") -> list[str]:
        return await self._call(self._files.listdir, path)

    async def walk(self, path: str = "/") -> AsyncGenerator[tuple[str, list[str], list[str]], None]:
        found = self._files.walk(path)
        try:
            while (item := await self._call(following, found)) is not None:
                yield item
        finally:
            await self._call(found.aclose)

    async def mkdir(self, path: str, mode: int = 0o755, **options: Any) -> None:
        await self._call(self._files.mkdir, path, mode, **options)

    async def remove(self, path: str) -> None:
        await self._call(self._files.remove, path)

    async def rename(self, path: str, to: str) -> None:
        await self._call(self._files.rename, path, to)


class User(_Through):
    """See `runtime.captive.guest.User`."""

    def __init__(self, portal: Portal, user: TrioUser) -> None:
        super().__init__(portal)
        self._user = user

    async def run(self, command: Sequence[str], **options: Unpack[RunOptions]) -> subprocess.CompletedProcess[bytes]:
        return await self._call(self._user.run, command, **options)

    async def start(self, command: Sequence[str], **options: Unpack[StartOptions]) -> Process:
        return Process(self._portal, await self._call(in_trio(self._user.start), command, **options))


class Captive(User):
    """See `runtime.captive.guest.Captive`."""

    def __init__(self, portal: Portal, guest: trios.Captive) -> None:
        super().__init__(portal, guest)
        self._guest = guest
        self.files = Files(portal, guest.files)

    def as_user(self, user: str | Account) -> User:
        return User(self._portal, self._guest.as_user(user))

    async def login(self, name: str, password: str | bytes) -> Account | None:
        return await self._call(self._guest.login, name, password)

    async def next_event(self) -> Event | None:
        """Wait for what happens to the guest; None once it has ended and all was told."""
        try:
            found: Event = await self._call(self._guest.events.receive)
        except trio.EndOfChannel:
            return None
        return found

    async def snapshot(self, directory: str = "") -> list[str]:
        return await self._call(self._guest.snapshot, directory)

    async def kill(self) -> None:
        await self._call(in_trio(self._guest.kill))

    @property
    def alive(self) -> bool:
        return self._guest.alive

    @property
    def log(self) -> list[bytes]:
        return self._guest.log


@contextlib.asynccontextmanager
async def captive(**options: Any) -> AsyncIterator[Captive]:
    """See `runtime.captive.guest.captive`. Methods of trees run in trio's thread (`async def`), or in others."""
    portal = Portal()
    await asyncio.to_thread(portal.__enter__)
    try:
        held = Held(partial(trios.captive, **options))
        guest = await asyncio.wrap_future(portal.submit(held.enter))
        try:
            yield Captive(portal, guest)
        finally:
            await asyncio.shield(asyncio.wrap_future(portal.submit(held.leave)))
    finally:
        await asyncio.shield(asyncio.to_thread(portal.close))
