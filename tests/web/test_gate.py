"""The gate: tokens, cookies, hosts, origins, rates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from runtime.web.access import Limit, Sessions, Visitor, matching
from runtime.web.gate import REQUESTS_AT_ONCE, WRONG_TOKENS_AT_ONCE, Gate

TOKEN = "correct-horse"
ORIGIN = "http://127.0.0.1:8080"


@dataclass
class Client:
    """Asks a gate, behind which everybody is told who they are."""

    secrets: dict[str, Visitor] = field(default_factory=lambda: {TOKEN: Visitor("teacher")})
    secure: bool = False

    def __post_init__(self) -> None:
        self.gate = Gate(
            _tell, lambda: self.secrets.items(), cookie="uml", secure=self.secure, names=["lab.example.org"]
        )

    async def ask(
        self, path: str = "/", method: str = "GET", kind: str = "http", **headers: str
    ) -> tuple[int, dict[str, str], str]:
        """Status (a close code of a websocket), headers and body."""
        target, _, query = path.partition("?")
        given = {"host": "127.0.0.1:8080", **{name.replace("_", "-"): value for name, value in headers.items()}}
        scope: dict[str, Any] = {
            "type": kind,
            "scheme": {"http": "http", "websocket": "ws"}[kind],
            "method": method,
            "path": target,
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in given.items()],
            "client": ("127.0.0.1", 1),
        }
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        async def receive() -> Any:
            return {"type": "websocket.connect"}

        await self.gate(scope, receive, send)
        if kind == "websocket":
            return sent[0].get("code", 0), {}, ""
        got = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return sent[0]["status"], got, b"".join(each.get("body", b"") for each in sent[1:]).decode()

    async def cookie(self, token: str = TOKEN) -> str:
        status, headers, _ = await self.ask(f"/?token={token}")
        assert status == 200
        return headers["set-cookie"].partition(";")[0]


async def _tell(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": scope["state"]["visitor"].name.encode()})


@pytest.fixture
def client() -> Client:
    return Client()


async def test_a_token_is_traded_for_a_cookie(client: Client) -> None:
    assert (await client.ask())[0] == 401
    status, headers, body = await client.ask(f"/?token={TOKEN}")
    assert status == 200
    assert headers["set-cookie"].endswith("; Path=/; HttpOnly; SameSite=Strict")
    assert TOKEN not in headers["set-cookie"] + body
    assert (await client.ask(cookie=await client.cookie()))[2] == "teacher"


async def test_over_tls_the_cookie_is_for_tls() -> None:
    _, headers, _ = await Client(secure=True).ask(f"/?token={TOKEN}")
    assert headers["set-cookie"].endswith("; Secure")


async def test_a_secret_that_counts_no_more_ends_its_sessions(client: Client) -> None:
    client.secrets["s"] = Visitor("anna", "lab-anna")
    cookie = await client.cookie("s")
    assert (await client.ask(cookie=cookie))[2] == "anna"
    del client.secrets["s"]
    assert (await client.ask(cookie=cookie))[0] == 401


@pytest.mark.parametrize("cookie", ["uml=", "uml=x", "other=x", 'uml="', "\xff"])
async def test_no_other_cookie_opens(client: Client, cookie: str) -> None:
    assert (await client.ask(cookie=cookie))[0] == 401


async def test_who_tries_tokens_must_wait(client: Client) -> None:
    statuses = [(await client.ask(f"/?token=x{n}"))[0] for n in range(int(WRONG_TOKENS_AT_ONCE) + 1)]
    assert statuses == [403] * int(WRONG_TOKENS_AT_ONCE) + [429]
    assert (await client.ask(f"/?token={TOKEN}"))[0] == 429


async def test_who_asks_too_much_must_wait(client: Client) -> None:
    statuses = [(await client.ask())[0] for _ in range(int(REQUESTS_AT_ONCE) + 20)]
    assert 429 in statuses


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8080", 200),
        ("[::1]:8080", 200),
        ("localhost:8080", 200),
        ("LAB.example.org", 200),
        ("evil.example.org:8080", 421),
        ("", 421),
        ("[", 421),
    ],
)
async def test_only_our_own_names_lead_here(client: Client, host: str, status: int) -> None:
    assert (await client.ask(host=host, cookie=await client.cookie()))[0] == status


@pytest.mark.parametrize(
    "origin", ["http://evil.example.org", "null", "", "https://127.0.0.1:8080", "http://127.0.0.1:80"]
)
async def test_other_origins_change_nothing_and_open_no_websocket(client: Client, origin: str) -> None:
    cookie = await client.cookie()
    assert (await client.ask("/api/machines", "POST", cookie=cookie, origin=origin))[0] == 403
    assert (await client.ask("/ws/exec/x", kind="websocket", cookie=cookie, origin=origin))[0] == 1008


async def test_our_own_origin_does(client: Client) -> None:
    cookie = await client.cookie()
    assert (await client.ask("/api/machines", "POST", cookie=cookie, origin=ORIGIN))[0] == 200
    assert (await client.ask("/ws/exec/x", kind="websocket", cookie=cookie, origin=ORIGIN))[0] == 0
    assert (await client.ask("/ws/exec/x", kind="websocket", origin=ORIGIN))[0] == 1008


async def test_another_site_may_link_here_and_read_nothing(client: Client) -> None:
    cookie = await client.cookie()
    assert (await client.ask(cookie=cookie, sec_fetch_site="cross-site", sec_fetch_mode="cors"))[0] == 403
    assert (await client.ask(cookie=cookie, sec_fetch_site="cross-site", sec_fetch_mode="navigate"))[0] == 200


async def test_every_answer_has_the_headers(client: Client) -> None:
    for path in ("/", f"/?token={TOKEN}", "/?token=x"):
        _, headers, _ = await client.ask(path)
        policy = headers["content-security-policy"]
        assert "script-src 'self';" in policy
        assert "default-src 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"


def test_sessions_end_and_are_bounded() -> None:
    now = [0.0]
    sessions = Sessions(lambda: now[0])
    first = sessions.begin(Visitor("a"), "s")
    assert sessions.find(first) is not None
    now[0] = 1e6
    assert sessions.find(first) is None
    cookies = [sessions.begin(Visitor("a"), "s") for _ in range(1100)]
    assert sum(sessions.find(each) is not None for each in cookies) == 1000


def test_a_limit_fills_again() -> None:
    now = [0.0]
    limit = Limit(1.0, 2.0, lambda: now[0])
    assert [limit.allows("a") for _ in range(3)] == [True, True, False]
    assert limit.allows("b")
    now[0] = 1.0
    assert [limit.allows("a") for _ in range(2)] == [True, False]


def _known() -> Iterator[tuple[str, Visitor]]:
    yield "one", Visitor("1")
    yield "two", Visitor("2")


def test_a_token_matches_its_visitor() -> None:
    assert matching("two", _known()) == Visitor("2")
    assert matching("three", _known()) is None
    assert matching("\udcff", _known()) is None
