"""Asking, in both ways: with trio and without."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

from runtime.mconsole.blocking import ask
from runtime.mconsole.client import Client
from runtime.mconsole.sockets import find_socket
from runtime.mconsole.wire import NOT_VERSION_2, Reply, encode_piece
from tests.mconsole.machine import machine
from umlfs.errors import UmlError, UsageError

Ask = Callable[[Path, str, float], Awaitable[Reply]]
SHORT = 0.05
LONG = 60.0


@pytest.fixture(params=["trio", "blocking"])
def asking(request: pytest.FixtureRequest) -> Ask:
    async def with_trio(path: Path, text: str, timeout: float) -> Reply:
        return await Client(path).request(text, timeout)

    async def blocking(path: Path, text: str, timeout: float) -> Reply:
        return await trio.to_thread.run_sync(ask, path, text, timeout)

    return with_trio if request.param == "trio" else blocking


async def test_replies(asking: Ask, tmp_path: Path) -> None:
    with machine(tmp_path / "s") as fake:
        assert await asking(fake.path, "version", LONG) == Reply(0, "version")
        assert await asking(fake.path, "fail -22 no", LONG) == Reply(-22, "no")
        assert await asking(fake.path, "pieces", LONG) == Reply(0, "0123456789" * 200)
        assert await asking(fake.path, "", LONG) == Reply(0, "")
        assert {len(each) for each in fake.heard} == {524}


async def test_long_answers_lose_nothing(asking: Ask, tmp_path: Path) -> None:
    """The kernel sends without waiting, and a socket's queue has room for eleven."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(tmp_path / "s"))
        server.setblocking(False)
        replies: list[Reply] = []

        async def one() -> None:
            replies.append(await asking(tmp_path / "s", "sysrq t", LONG))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(one)
            await trio.lowlevel.wait_readable(server)
            _, address = server.recvfrom(4096)
            for number in range(100):
                server.sendto(encode_piece(0, True, b"%d\n" % number), address)
            server.sendto(encode_piece(0, False, b""), address)
        assert replies == [Reply(0, "".join(f"{number}\n" for number in range(100)))]


async def test_many_at_the_same_time(tmp_path: Path) -> None:
    with machine(tmp_path / "s") as fake:
        client, replies = Client(fake.path), []

        async def one(number: int) -> None:
            replies.append((number, (await client.request(f"request {number}", LONG)).text))

        async with trio.open_nursery() as nursery:
            for number in range(40):
                nursery.start_soon(one, number)
    assert sorted(replies) == [(number, f"request {number}") for number in range(40)]


async def test_long_path(asking: Ask, tmp_path: Path) -> None:
    place = tmp_path / ("x" * 120)
    with machine(tmp_path / "s") as fake:
        place.mkdir()
        os.link(fake.path, place / "mconsole")
        assert await asking(place / "mconsole", "version", LONG) == Reply(0, "version")


async def test_silence_is_an_error(asking: Ask, tmp_path: Path) -> None:
    answers = {"begin": [encode_piece(0, True, b"begun")]}
    with machine(tmp_path / "s", lambda text: answers.get(text, [])) as fake:
        with pytest.raises(UmlError, match=r"no answer within 0.05 s; the guest may hang; --timeout"):
            await asking(fake.path, "nothing", SHORT)
        with pytest.raises(UmlError, match=r"the rest of the answer did not come within 2 s") as failure:
            await asking(fake.path, "begin", 2.0)
        assert failure.value.details == "begun"


async def test_a_full_queue_is_an_error(asking: Ask, tmp_path: Path) -> None:
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other,
    ):
        server.bind(str(tmp_path / "s"))
        other.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                other.sendto(b"x", str(tmp_path / "s"))
        with pytest.raises(UmlError, match="no answer"):
            await asking(tmp_path / "s", "version", SHORT)


async def test_odd_answers(asking: Ask, tmp_path: Path) -> None:
    answers = {"old": [NOT_VERSION_2], "nonsense": [b"nonsense"]}
    with machine(tmp_path / "s", answers.__getitem__) as fake:
        assert (await asking(fake.path, "old", LONG)).err == 1
        with pytest.raises(UmlError, match="not the management console"):
            await asking(fake.path, "nonsense", LONG)


async def test_no_machine(asking: Ask, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as gone:
        gone.bind(str(tmp_path / "gone"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
        stream.bind(str(tmp_path / "stream"))
        for name, why in [
            ("missing", "no such machine"),
            ("file", "nobody answers|not a socket"),
            ("gone", "nobody answers there any more"),
            ("stream", "not the socket of a management console"),
            ("file/x", "no such machine"),
        ]:
            with pytest.raises(UmlError, match=why):
                await asking(tmp_path / name, "version", LONG)


async def test_too_long(asking: Ask, tmp_path: Path) -> None:
    with machine(tmp_path / "s") as fake:
        with pytest.raises(UsageError, match="512 bytes of request, at most 511 fit"):
            await asking(fake.path, "x" * 512, LONG)
        assert fake.heard == []


async def test_late_replies_are_nobodys(tmp_path: Path) -> None:
    """The first answer comes after its time-out, together with the second."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(tmp_path / "s"))
        server.setblocking(False)
        client = Client(tmp_path / "s")
        with pytest.raises(UmlError, match="no answer"):
            await client.request("first", SHORT)
        _, late = server.recvfrom(4096)

        async def answer() -> None:
            await trio.lowlevel.wait_readable(server)
            _, address = server.recvfrom(4096)
            with pytest.raises(ConnectionRefusedError):
                server.sendto(encode_piece(0, False, b"late"), late)
            server.sendto(encode_piece(0, False, b"second"), address)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            assert (await client.request("second", LONG)).text == "second"


def test_where_machines_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with machine(tmp_path / ".uml" / "m" / "mconsole") as fake:
        expected = fake.path
        assert find_socket("m") == expected
        assert find_socket(str(expected)) == expected
        assert find_socket(str(expected.parent)) == expected
        assert find_socket(".uml/m/mconsole") == Path(".uml/m/mconsole")
    for name in ("m", "", "/nowhere"):
        with pytest.raises(UmlError, match="no such machine"):
            find_socket(name)


def test_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME")
    with pytest.raises(UmlError, match="m: no such machine in /tmp/uml"):
        find_socket("m")
