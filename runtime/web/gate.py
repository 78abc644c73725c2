"""The gate before the application: hosts, origins, sessions, rates, and the headers of every answer."""

from __future__ import annotations

import http.cookies
import ipaddress
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from runtime.web.access import Limit, Sessions, Visitor, matching

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

POLICY: Final = (
    # xterm.js makes style elements as it runs; scripts come from files alone.
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS: Final = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)
SAFE: Final = frozenset({"GET", "HEAD"})
REQUESTS_A_SECOND: Final = 50.0
REQUESTS_AT_ONCE: Final = 300.0
WRONG_TOKENS_A_SECOND: Final = 0.1
WRONG_TOKENS_AT_ONCE: Final = 10.0
POLICY_VIOLATION: Final = 1008
"""The code with which a websocket is closed that may not be."""


class Gate:
    """An ASGI application that lets requests through to another one, the visitor being `scope["state"]["visitor"]`."""

    def __init__(
        self,
        application: Application,
        known: Callable[[], Iterable[tuple[str, Visitor]]],
        *,
        cookie: str,
        secure: bool,
        names: Iterable[str] = (),
    ) -> None:
        """`known` gives the secrets that open the gate; `names` are those that this server has beside addresses.
        With `secure` the cookie goes over TLS alone."""
        self._application = application
        self._known = known
        self._cookie = cookie
        self._secure = secure
        self._names = {"localhost", *(name.lower() for name in names)}
        self._sessions = Sessions()
        self._requests = Limit(REQUESTS_A_SECOND, REQUESTS_AT_ONCE)
        self._wrong = Limit(WRONG_TOKENS_A_SECOND, WRONG_TOKENS_AT_ONCE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._application(scope, receive, send)
            return
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        peer = (scope.get("client") or ("?",))[0]
        if scope["type"] == "http":
            send = _with_headers(send)
        refusal = self._refusal(scope, headers, peer)
        if refusal is not None:
            await _refuse(scope, receive, send, *refusal)
            return
        if scope["type"] == "http" and scope["path"] == "/" and b"token=" in scope["query_string"]:
            await self._enter(scope, peer, send)
            return
        visitor = self._visitor(headers)
        if visitor is None:
            await _refuse(scope, receive, send, 401, "not signed in: open the address that 'uml web' printed")
            return
        scope.setdefault("state", {})["visitor"] = visitor
        await self._application(scope, receive, send)

    def _refusal(self, scope: Scope, headers: dict[bytes, str], peer: str) -> tuple[int, str] | None:
        """Status and text for a request that is not let through, whoever sends it."""
        if not self._requests.allows(peer):
            return 429, "too many requests: try again in a moment"
        host = headers.get(b"host", "")
        if not self._is_ours(host):
            return 421, "this server has another name: 'uml web --name' gives it one"
        if scope["type"] == "websocket" or scope["method"] not in SAFE:
            scheme = {"ws": "http", "wss": "https"}.get(scope["scheme"], scope["scheme"])
            if headers.get(b"origin", "") != f"{scheme}://{host}":
                return 403, "a page of another origin asked"
        if headers.get(b"sec-fetch-site") == "cross-site" and headers.get(b"sec-fetch-mode") != "navigate":
            return 403, "a page of another origin asked"
        return None

    def _is_ours(self, host: str) -> bool:
        """Whether a browser was led here by an address or one of our names: a name of somebody else's, which leads here
        too, would make its pages ours (DNS rebinding)."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name in self._names
        return True

    async def _enter(self, scope: Scope, peer: str, send: Send) -> None:
        """Trade a token for a cookie. The page that says so leads on by itself: a redirect from another site's link
        would not carry the cookie yet."""
        if not self._wrong.would_allow(peer):
            await _answer(send, 429, "too many wrong tokens: try again in a minute")
            return
        token = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        visitor = matching(token, self._known())
        if visitor is None:
            self._wrong.allows(peer)
            await _answer(send, 403, "a wrong token: open the address that 'uml web' printed, whole")
            return
        cookie = f"{self._cookie}={self._sessions.begin(visitor, token)}; Path=/; HttpOnly; SameSite=Strict"
        page = '<!doctype html><meta http-equiv="refresh" content="0;url=/"><title>uml</title><a href="/">Go on</a>'
        await _answer(
            send,
            200,
            page,
            (b"content-type", b"text/html; charset=utf-8"),
            cookie + ("; Secure" if self._secure else ""),
        )

    def _visitor(self, headers: dict[bytes, str]) -> Visitor | None:
        """Whose cookie it is, if the secret that opened the session still counts."""
        try:
            morsel = http.cookies.SimpleCookie(headers.get(b"cookie", "")).get(self._cookie)
        except http.cookies.CookieError:
            return None
        found = None if morsel is None else self._sessions.find(morsel.value)
        if found is None:
            return None
        return matching(found[1], self._known())


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            given = {name.lower() for name, _ in message.get("headers", ())}
            ours = [each for each in HEADERS if each[0] not in given]
            message["headers"] = [*message.get("headers", ()), *ours]
        await send(message)

    return sending


async def _refuse(scope: Scope, receive: Receive, send: Send, status: int, text: str) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": text[:100]})
        return
    await _answer(send, status, f"{text}\n")


async def _answer(
    send: Send,
    status: int,
    text: str,
    kind: tuple[bytes, bytes] = (b"content-type", b"text/plain; charset=utf-8"),
    cookie: str = "",
) -> None:
    body = text.encode()
    headers = [kind, (b"content-length", b"%d" % len(body))]
    if cookie:
        headers.append((b"set-cookie", cookie.encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
