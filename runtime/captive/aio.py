"""Captive guests for asyncio: trio runs in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self

import trio

from runtime.captive import guest as trios
from runtime.captive.accounts import Account
from runtime.captive.events import Event
from runtime.captive.files import Files as TrioFiles
from runtime.captive.guest import User as TrioUser
from runtime.captive.held import Held, call
from runtime.captive.portal import Portal
from runtime.captive.process import Process as TrioProcess
from umlfs.filesystem import Attr


class _Through:
    """Calls through a portal. Cancelling the task cancels the call."""

    def __init__(self, portal: Portal) -> None:
        self._portal = portal

    async def _call(self, function: Any, *args: Any, **words: Any) -> Any:
        return await asyncio.wrap_future(self._portal.submit(call, function, args, words))


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
        found: bytes = await self._call(self._process.stdout.receive_some, max_bytes)
        return found

    async def receive_error(self, max_bytes: int | None = None) -> bytes:
        """Some of its errors; nothing at the end."""
        found: bytes = await self._call(self._process.stderr.receive_some, max_bytes)
        return found

    async def wait(self) -> int:
        status: int = await self._call(self._process.wait)
        return status

    async def signal(self, name: str) -> None:
        await self._call(self._process.signal, name)

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

    async def read(self, path: str, **words: Any) -> bytes:
        found: bytes = await self._call(self._files.read, path, **words)
        return found

    async def write(self, path: str, data: bytes, **words: Any) -> None:
        await self._call(self._files.write, path, data, **words)

    async def stat(self, path: str, *, follow: bool = True) -> Attr:
        found: Attr = await self._call(self._files.stat, path, follow=follow)
        return found

    async def exists(self, path: str) -> bool:
        return bool(await self._call(self._files.exists, path))

    async def listdir(self, path: str = "/") -> list[str]:
        found: list[str] = await self._call(self._files.listdir, path)
        return found

    async def walk(self, path: str = "/") -> AsyncGenerator[tuple[str, list[str], list[str]], None]:
        found = self._files.walk(path)
        try:
            while (item := await self._call(_next, found)) is not None:
                yield item
        finally:
            await self._call(found.aclose)

    async def mkdir(self, path: str, mode: int = 0o755, **words: Any) -> None:
        await self._call(self._files.mkdir, path, mode, **words)

    async def remove(self, path: str) -> None:
        await self._call(self._files.remove, path)

    async def rename(self, path: str, to: str) -> None:
        await self._call(self._files.rename, path, to)


async def _next(found: Any) -> Any:
    return await anext(found, None)


class User(_Through):
    """See `runtime.captive.guest.User`."""

    def __init__(self, portal: Portal, user: TrioUser) -> None:
        super().__init__(portal)
        self._user = user

    async def run(
        self,
        command: Sequence[str],
        *,
        input: bytes = b"",
        directory: str | None = None,
        environment: Mapping[str, str] | None = None,
        timeout: float | None = None,
        check: bool = False,
    ) -> subprocess.CompletedProcess[bytes]:
        words = {"input": input, "directory": directory, "environment": environment, "timeout": timeout, "check": check}
        done: subprocess.CompletedProcess[bytes] = await self._call(self._user.run, command, **words)
        return done

    async def start(self, command: Sequence[str], **words: Any) -> Process:
        return Process(self._portal, await self._call(self._user.start, command, **words))


class Captive(User):
    """See `runtime.captive.guest.Captive`."""

    def __init__(self, portal: Portal, guest: trios.Captive) -> None:
        super().__init__(portal, guest)
        self._guest = guest
        self.files = Files(portal, guest.files)

    def as_user(self, user: str | Account) -> User:
        return User(self._portal, self._guest.as_user(user))

    async def login(self, name: str, password: str | bytes) -> Account | None:
        found: Account | None = await self._call(self._guest.login, name, password)
        return found

    async def next_event(self) -> Event | None:
        """Wait for what happens to the guest; None once it has ended and all was told."""
        try:
            found: Event = await self._call(self._guest.events.receive)
        except trio.EndOfChannel:
            return None
        return found

    async def snapshot(self, directory: str = "") -> list[str]:
        found: list[str] = await self._call(self._guest.snapshot, directory)
        return found

    async def kill(self) -> None:
        await self._call(self._guest.kill)

    @property
    def alive(self) -> bool:
        return self._guest.alive

    @property
    def log(self) -> list[bytes]:
        return self._guest.log


@contextlib.asynccontextmanager
async def captive(**words: Any) -> AsyncIterator[Captive]:
    """See `runtime.captive.guest.captive`. Methods of trees run in trio's thread (`async def`), or in others."""
    portal = Portal()
    await asyncio.to_thread(portal.__enter__)
    try:
        held = Held(partial(trios.captive, **words))
        guest = await asyncio.wrap_future(portal.submit(held.enter))
        try:
            yield Captive(portal, guest)
        finally:
            await asyncio.shield(asyncio.wrap_future(portal.submit(held.leave)))
    finally:
        await asyncio.shield(asyncio.to_thread(portal.close))
