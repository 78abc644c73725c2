"""The sites as an application for other web servers: ASGI (hypercorn, uvicorn) and WSGI (gunicorn, mod_wsgi)."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import queue
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import quote

import sniffio
import trio

from runtime.captive.portal import Portal
from runtime.sites import config
from runtime.sites.application import Receive, Scope, Send, Sites

T = TypeVar("T")
Answer = queue.Queue[dict[str, Any]]

PIECE: Final = 64 << 10
AHEAD: Final = 8
"""Pieces of an answer that wait for a slow WSGI server."""
LOOK_SECONDS: Final = 1.0
"""How soon an answer that broke off is found out."""


class Asgi:
    """Sites for an ASGI server on asyncio or trio. Guests end when the server's lifespan does."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """`path` is SITES.toml. UsageError for one that makes no sense."""
        self._sites = Sites(config.load(Path(path)))
        self._thread: _Thread | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif self._thread is None:
            await self._sites(scope, receive, send)
        else:
            await self._from_asyncio(self._thread, scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        if sniffio.current_async_library() == "trio":
            async with self._sites.running():
                await send({"type": "lifespan.startup.complete"})
                await receive()
        else:
            self._thread = await asyncio.to_thread(_Thread, self._sites)
            try:
                await send({"type": "lifespan.startup.complete"})
                await receive()
            finally:
                await asyncio.to_thread(self._thread.close)
        await send({"type": "lifespan.shutdown.complete"})

    async def _from_asyncio(self, thread: _Thread, scope: Scope, receive: Receive, send: Send) -> None:
        loop = asyncio.get_running_loop()

        def there(function: Callable[..., Coroutine[Any, Any, T]]) -> Callable[..., Coroutine[Any, Any, T]]:
            async def call(*args: Any) -> T:
                return await _result(asyncio.run_coroutine_threadsafe(function(*args), loop))

            return call

        wanted: Any = (there(_coroutine(receive)), there(_coroutine(send)))
        await asyncio.wrap_future(thread.portal.submit(self._sites, scope, *wanted))


class Input(Protocol):
    """wsgi.input, as PEP 3333 has it."""

    def read(self, size: int, /) -> bytes: ...


class Wsgi:
    """Sites for a WSGI server with threads. They begin with the first request of a process, and end by `close` or with
    the process."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """`path` is SITES.toml. UsageError for one that makes no sense."""
        self._configs = config.load(Path(path))
        self._lock = threading.Lock()
        self._owner = 0
        self._thread: _Thread

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        thread = self._started()
        answer: Answer = queue.Queue(AHEAD)
        body: Input = environ["wsgi.input"]
        # Without a length, a server that knows where the body ends says so.
        to_its_end = bool(environ.get("wsgi.input_terminated")) and not environ.get("CONTENT_LENGTH")
        left = int(environ.get("CONTENT_LENGTH") or 0)

        async def receive() -> dict[str, Any]:
            nonlocal left
            wanted = PIECE if to_its_end else min(left, PIECE)
            data = await trio.to_thread.run_sync(body.read, wanted) if wanted else b""
            if left and not data:
                return {"type": "http.disconnect"}  # the client went away amid it
            left -= len(data) if left else 0
            return {"type": "http.request", "body": data, "more_body": bool(data) if to_its_end else left > 0}

        async def send(message: dict[str, Any]) -> None:
            await trio.to_thread.run_sync(answer.put, message, abandon_on_cancel=True)

        done = thread.portal.submit(thread.sites, scope_of(environ), receive, send)
        return _pieces(answer, done, start_response)

    def _started(self) -> _Thread:
        with self._lock:
            if self._owner != os.getpid():  # a server forks after it has loaded this
                self._owner, self._thread = os.getpid(), _Thread(Sites(self._configs))
            return self._thread

    def close(self) -> None:
        """End the guests of this process."""
        with self._lock:
            if self._owner == os.getpid():
                self._owner = 0
                self._thread.close()


class _Thread:
    """A thread in which the sites are running."""

    def __init__(self, sites: Sites) -> None:
        self.sites = sites
        self.portal = Portal()
        self.portal.__enter__()
        ready = threading.Event()
        self._running = self.portal.submit(self._run, ready)
        ready.wait()

    async def _run(self, ready: threading.Event) -> None:
        async with self.sites.running():
            ready.set()
            await trio.sleep_forever()

    def close(self) -> None:
        self.portal.close()


def scope_of(environ: dict[str, Any]) -> Scope:
    """What an ASGI server would tell of the same request."""
    path = (environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")).encode("latin-1")
    raw = environ.get("REQUEST_URI", environ.get("RAW_URI"))
    headers = [
        (name[5:].replace("_", "-").lower().encode("latin-1"), value.encode("latin-1"))
        for name, value in environ.items()
        if name.startswith("HTTP_")
    ]
    for name in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        if environ.get(name):
            headers.append((name.replace("_", "-").lower().encode(), environ[name].encode("latin-1")))
    return {
        "type": "http",
        "method": environ["REQUEST_METHOD"],
        "path": path.decode(errors="replace"),
        "raw_path": (quote(path) if raw is None else raw).encode("latin-1"),
        "query_string": environ.get("QUERY_STRING", "").encode("latin-1"),
        "headers": headers,
        "client": (environ.get("REMOTE_ADDR", ""), 0),
        "scheme": environ.get("wsgi.url_scheme", "http"),
    }


def _pieces(
    answer: Answer, done: concurrent.futures.Future[None], start_response: Callable[..., Any]
) -> Iterator[bytes]:
    """The body. Status and headers come before the first of it."""
    more = True
    try:
        while more:
            try:
                message = answer.get(timeout=LOOK_SECONDS)
            except queue.Empty:
                more = not done.done()
                continue
            if message["type"] == "http.response.start":
                headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in message["headers"]]
                start_response(f"{message['status']} {_reason(message['status'])}", headers)
            else:
                more = message.get("more_body", False)
                yield message.get("body", b"")
        done.result()
    finally:
        done.cancel()


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


def _coroutine(function: Callable[..., Any]) -> Callable[..., Coroutine[Any, Any, Any]]:
    async def call(*args: Any) -> Any:
        return await function(*args)

    return call


async def _result(future: concurrent.futures.Future[T]) -> T:
    """Of something that asyncio does."""
    token, over = trio.lowlevel.current_trio_token(), trio.Event()

    def wake(_: object) -> None:
        with suppress(trio.RunFinishedError):
            token.run_sync_soon(over.set)

    future.add_done_callback(wake)
    try:
        await over.wait()
    except trio.Cancelled:
        future.cancel()
        raise
    return future.result()
