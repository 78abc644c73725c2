"""Who may do what: tokens, sessions, and how often somebody may ask."""

from __future__ import annotations

import hmac
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from time import monotonic
from typing import Final

SESSION_SECONDS: Final = 12 * 3600.0
SESSIONS_MAX: Final = 1000
"""Sessions at a time; a further one ends the oldest."""
PEERS_MAX: Final = 1000
"""Addresses whose requests are counted at a time."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """Somebody who was let in."""

    name: str
    umid: str | None = None
    """The one machine whose console a student may use; None for who may do everything."""

    @property
    def is_student(self) -> bool:
        return self.umid is not None


class Sessions:
    """From cookies to visitors. Cookies are random and die with the server."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._sessions: OrderedDict[str, tuple[float, Visitor, str]] = OrderedDict()

    def begin(self, visitor: Visitor, secret: str) -> str:
        """The cookie of a new session, which was opened with `secret`."""
        while len(self._sessions) >= SESSIONS_MAX:
            self._sessions.popitem(last=False)
        cookie = secrets.token_urlsafe(32)
        self._sessions[cookie] = (self._clock() + SESSION_SECONDS, visitor, secret)
        return cookie

    def find(self, cookie: str) -> tuple[Visitor, str] | None:
        """Whose session it is, and the secret that opened it."""
        found = self._sessions.get(cookie)
        if found is None:
            return None
        end, visitor, secret = found
        if self._clock() >= end:
            del self._sessions[cookie]
            return None
        return visitor, secret

    def end(self, cookie: str) -> None:
        """Forget a session."""
        self._sessions.pop(cookie, None)


def matching(token: str, known: Iterable[tuple[str, Visitor]]) -> Visitor | None:
    """The visitor whose secret `token` is. The time that it takes tells nothing of any secret."""
    given, found = token.encode("utf-8", "surrogateescape"), None
    for secret, visitor in known:
        if hmac.compare_digest(given, secret.encode()):
            found = visitor
    return found


class Limit:
    """A bucket of requests for each address: `burst` at once, and `rate` a second from then on."""

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = monotonic) -> None:
        self._rate, self._burst, self._clock = rate, burst, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def allows(self, peer: str) -> bool:
        """Whether `peer` may ask once more now; that is counted."""
        left = self._left(peer)
        self._buckets[peer] = (max(left - 1, 0.0), self._clock())
        self._buckets.move_to_end(peer)
        while len(self._buckets) > PEERS_MAX:
            self._buckets.popitem(last=False)
        return left >= 1

    def would_allow(self, peer: str) -> bool:
        """The same without being counted."""
        return self._left(peer) >= 1

    def _left(self, peer: str) -> float:
        left, since = self._buckets.get(peer, (self._burst, 0.0))
        return min(self._burst, left + (self._clock() - since) * self._rate)
