"""One site: its guest, which is booted on demand, kept warm, and ended when idle."""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import subprocess
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Final

import trio

from runtime.captive import Captive, Limits, Mount, captive
from runtime.sites.config import Mode, SiteConfig
from runtime.sites.exchange import Exchange, HttpRequest
from runtime.sites.settings import Settings
from runtime.sites.spawner import CONNECT, Spawner
from runtime.sites.tree import Requests, Script
from umlfs.errors import UmlError

log = logging.getLogger(__name__)

RETRY_SECONDS: Final = 5.0
"""After a boot that failed, so long every request fails at once."""
CHECK_SECONDS: Final = 5.0
WAITING_MAX: Final = 256
"""Requests that wait for the guest. More are told to come again."""


class Busy(Exception):
    """Too many requests wait already: 503."""


class Late(Exception):
    """No answer within the time limit: 504."""


class Site:
    """`run` is to be running as long as it is served."""

    def __init__(self, config: SiteConfig) -> None:
        self.config = config
        self._numbers = itertools.count(1)
        self._limit = trio.CapacityLimiter(config.at_once)
        self._queue, self._waiting = trio.open_memory_channel[Exchange | None](math.inf)
        self._requests = Requests(self._next)
        self._guest: Captive | None = None
        self._nursery: trio.Nursery | None = None
        """Tasks of the guest."""
        self._waiters = 0
        """Requests that wait for a guest."""
        self._changed = trio.Event()
        self._failed_at = -math.inf
        self._failure: UmlError | None = None
        self._users = 0
        self._used = 0.0
        self._restart: trio.CancelScope | None = None
        self._spawner: Spawner | None = None

    @property
    def warm(self) -> bool:
        """Whether its guest runs."""
        return self._guest is not None

    # The guest --------------------------------------------------------------------------------

    async def run(self) -> None:
        """Have a guest whenever one is wanted, until cancelled. Whatever befalls it is this site's own matter."""
        while True:
            while not self._waiters:
                await self._changed.wait()
            try:
                await self._one_guest()
            except UmlError as error:
                self._failure, self._failed_at = error, trio.current_time()
                log.error("%s: %s", self.config.name, error)
            except Exception:
                self._failure, self._failed_at = UmlError("the guest failed"), trio.current_time()
                log.exception("%s: the guest failed", self.config.name)
            finally:
                self._guest = self._nursery = None
                self._change()

    def _change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def _one_guest(self) -> None:
        config = self.config
        limits = Limits(memory=config.memory, time_limit=config.time_limit)
        settings = Settings(config, self._reconfigure)
        with trio.CancelScope() as self._restart:
            async with captive(
                root=config.root,
                mounts={
                    "/site": Mount(config.files, read_only=not config.writable),
                    "/requests": self._requests,
                    "/config": settings,
                },
                network=config.network,
                limits=limits,
                name=config.name.replace(".", "-")[:63].rstrip("-"),
            ) as guest:
                self._guest, self._failure, self._used = guest, None, trio.current_time()
                self._change()
                async with trio.open_nursery() as nursery:
                    self._nursery = nursery
                    nursery.start_soon(self._until_idle, nursery.cancel_scope)
                    if config.mode is not Mode.CGI:
                        nursery.start_soon(self._loop, guest)
                    if config.mode is not Mode.LOOP:
                        nursery.start_soon(self._scripts, guest)
                    how = await guest.ended()
                    log.error("%s: the guest ended: %s", config.name, how)
                    nursery.cancel_scope.cancel()

    async def _until_idle(self, scope: trio.CancelScope) -> None:
        while self._users or trio.current_time() < self._used + self.config.idle:  # noqa: ASYNC110 - a clock
            await trio.sleep(1 if self._users else self._used + self.config.idle - trio.current_time())
        scope.cancel()

    async def _loop(self, guest: Captive) -> None:
        """The process that answers runs, again and again if it ends."""
        while True:
            done = await guest.as_user(self.config.user).run(self.config.handler, directory="/site")
            words = done.stderr.decode(errors="replace").strip()[-200:]
            log.warning("%s: the handler ended with exit status %d %s", self.config.name, done.returncode, words)
            await trio.sleep(1)

    async def _scripts(self, guest: Captive) -> None:
        """Have scripts answer by CGI; by another one when the site's settings say so."""
        while True:
            self._spawner = Spawner(guest)
            words = (f"{CONNECT}{self.config.socket}",) if self.config.mode.by_socket else self.config.handler
            await self._spawner.run(self.config.user, words)

    def restart(self) -> None:
        """End the guest; the next request boots another."""
        self._guest = None
        if self._restart is not None:
            self._restart.cancel()

    async def _check(self, guest: Captive) -> None:
        """A guest whose script did not answer may hang as a whole: one that does nothing else either is ended."""
        try:
            await guest.run(["true"], timeout=CHECK_SECONDS)
        except subprocess.TimeoutExpired:
            log.error("%s: the guest hangs", self.config.name)
            self.restart()
        except UmlError:
            self.restart()

    def _reconfigure(self, config: SiteConfig) -> None:
        """The site's own settings changed."""
        same_mode, same_handler = config.mode is self.config.mode, config.handler == self.config.handler
        self.config = replace(self.config, handler=config.handler, mode=config.mode, time_limit=config.time_limit)
        if not same_mode or (not same_handler and config.mode is not Mode.CGI):
            self.restart()
        elif not same_handler and self._spawner is not None:
            self._spawner.stopped = True
            self._queue.send_nowait(None)

    async def _up(self) -> Captive:
        """The guest. UmlError if it does not boot."""
        if self._failure is not None and trio.current_time() < self._failed_at + RETRY_SECONDS:
            raise self._failure
        self._failure = None
        self._waiters += 1
        self._change()
        try:
            while self._guest is None:
                await self._changed.wait()
                if self._failure is not None:
                    raise self._failure
        finally:
            self._waiters -= 1
        return self._guest

    async def _next(self) -> Exchange | None:
        """The next request that still waits for an answer; None to end whoever takes them."""
        while True:
            exchange = await self._waiting.receive()
            if exchange is None or not exchange.over:
                return exchange

    # Requests ---------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def answered(self, request: HttpRequest) -> AsyncIterator[Exchange]:
        """The exchange in which a script answers `request`, once it has begun to. Busy, Late, BadAnswer, UmlError."""
        if self._limit.statistics().tasks_waiting >= WAITING_MAX:
            raise Busy
        exchange = Exchange(next(self._numbers), request)
        self._users += 1
        try:
            async with self._limit:
                guest = await self._up()
                mode = self.config.mode
                script = None if mode is Mode.LOOP else Script(self.config.name, self.config.handler[0], mode)
                self._requests.add(exchange, script)
                self._queue.send_nowait(exchange)
                await self._begin(guest, exchange)
                yield exchange
        finally:
            await self._abandon(exchange)
            self._requests.drop(exchange)
            self._users -= 1
            self._used = trio.current_time()

    async def _abandon(self, exchange: Exchange) -> None:
        exchange.abandon()
        if exchange.session and not exchange.finished and self._spawner is not None:
            with trio.move_on_after(CHECK_SECONDS, shield=True):
                await self._spawner.kill(exchange.session)

    async def _begin(self, guest: Captive, exchange: Exchange) -> None:
        failed: list[Exception] = []
        with trio.move_on_after(self.config.time_limit):
            async with trio.open_nursery() as waiting:
                waiting.start_soon(_gone, guest, waiting.cancel_scope, failed)
                await exchange.begun.wait()
                waiting.cancel_scope.cancel()
        if failed or exchange.failure is not None:
            raise failed[0] if exchange.failure is None else exchange.failure
        if not exchange.begun.is_set():
            if self.config.mode is Mode.LOOP:
                self.restart()
            elif self._nursery is not None:
                self._nursery.start_soon(self._check, guest)
            raise Late


async def _gone(guest: Captive, scope: trio.CancelScope, failed: list[Exception]) -> None:
    how = await guest.ended()
    failed.append(UmlError(f"the guest ended: {how}"))
    scope.cancel()
