"""Notifications of a kernel, and those who follow them."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from runtime.mconsole import events
from runtime.mconsole.events import Event, Publisher, decode_event, follow, publishing
from runtime.mconsole.notify import listening
from runtime.mconsole.watch import watch
from runtime.mconsole.wire import NoticeKind, Notification, encode_hang, encode_notification
from tests.ordinary import ROOT
from umlfs.errors import UmlError

LONG = 60
UML = [sys.executable, "-P", "-c", "from runtime.cli import main; main()"]


class Heard:
    """Events as they come."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._more = trio.Event()

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        self._more.set()

    async def number(self, count: int) -> list[tuple[str, str, str]]:
        """The first `count`, once they are there."""
        with trio.fail_after(LONG):
            while len(self.events) < count:
                self._more = trio.Event()
                await self._more.wait()
        return [(each.machine, each.event, each.text) for each in self.events[:count]]


async def test_notifications(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with listening(tmp_path / "notify") as notifications, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as kernel:
        for datagram in (
            encode_notification(NoticeKind.BOOT, b"/x\0"),
            b"nonsense",
            encode_notification(NoticeKind.USER, b"hello\n"),
            encode_hang(),
            b"",
            encode_notification(NoticeKind.PANIC, b"why\0"),
        ):
            kernel.sendto(datagram, str(tmp_path / "notify"))
        with trio.fail_after(LONG):
            found = [await anext(aiter(notifications)) for _ in range(4)]
    assert found == [
        Notification(NoticeKind.BOOT, "/x"),
        Notification(NoticeKind.USER, "hello\n"),
        Notification(NoticeKind.HANG),
        Notification(NoticeKind.PANIC, "why"),
    ]
    assert not (tmp_path / "notify").exists()


async def test_followers(tmp_path: Path) -> None:
    """What happened before they came, what happens, and the end."""
    early, late = Heard(), Heard()
    path = tmp_path / "events"
    async with trio.open_nursery() as nursery:  # noqa: SIM117 - followers outlive the publisher
        async with publishing(path, "m") as publisher:
            assert path.stat().st_mode & 0o777 == 0o600
            nursery.start_soon(follow, path, early)
            publisher.publish(Notification(NoticeKind.BOOT, "/x"))
            await early.number(1)
            publisher.publish(Notification(NoticeKind.USER, "a\nb"))
            await early.number(2)
            nursery.start_soon(follow, path, late)
            await late.number(2)
            publisher.publish(Notification(NoticeKind.EXIT, "status 0"))
        # Both are told, and then have nobody to follow.
    expected = [("m", "boot", "/x"), ("m", "user", "a\nb"), ("m", "exit", "status 0")]
    assert await early.number(3) == await late.number(3) == expected
    assert abs(early.events[0].time - time.time()) < LONG
    with pytest.raises(OSError, match=r"No such file|Errno"):
        await follow(path, early)


async def test_a_slow_follower_misses_some_and_is_told(tmp_path: Path) -> None:
    path = tmp_path / "events"
    heard = Heard()
    async with publishing(path, "m") as publisher:
        stream = await trio.open_unix_socket(str(path))
        async with stream:
            publisher.publish(Notification(NoticeKind.BOOT))
            rest = await stream.receive_some(1000)
            for number in range(20_000):
                publisher.publish(Notification(NoticeKind.USER, f"{number} " + "x" * 500))
                if number % 100 == 0:
                    await trio.lowlevel.checkpoint()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(follow, path, heard)
                await heard.number(events.RECENT)
                nursery.cancel_scope.cancel()
            lines = [rest]
            with trio.fail_after(LONG):
                while b'"lost"' not in (lines[-2] if len(lines) > 1 else b"") + lines[-1]:
                    lines.append(await stream.receive_some(65536))
    told = [event for line in b"".join(lines).split(b"\n") if (event := decode_event(line))]
    lost = next(int(event.text) for event in told if event.event == "lost")
    assert lost > 10_000
    assert lost + sum(event.event == "user" for event in told) == 20_000


async def test_followers_who_leave_make_room(tmp_path: Path) -> None:
    path = tmp_path / "events"
    async with publishing(path, "m") as publisher:
        publisher.publish(Notification(NoticeKind.BOOT))
        for _ in range(events.FOLLOWERS_MAX * 3):
            heard = Heard()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(follow, path, heard)
                with trio.move_on_after(LONG):
                    await heard.number(1)
                nursery.cancel_scope.cancel()
            with trio.fail_after(LONG):
                while followers(publisher):
                    await trio.lowlevel.checkpoint()


async def test_one_too_many_is_hung_up_on(tmp_path: Path) -> None:
    path = tmp_path / "events"
    heard = [Heard() for _ in range(events.FOLLOWERS_MAX)]
    async with publishing(path, "m") as publisher, trio.open_nursery() as nursery:
        for each in heard:
            nursery.start_soon(follow, path, each)
        publisher.publish(Notification(NoticeKind.BOOT))
        for each in heard:
            await each.number(1)
        extra = Heard()
        await follow(path, extra)
        assert extra.events == []
        nursery.cancel_scope.cancel()


def followers(publisher: Publisher) -> int:
    return len(publisher._followers)


async def test_leaving_does_not_wait_for_the_slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "FLUSH_SECONDS", 0.01)
    async with publishing(tmp_path / "events", "m") as publisher:
        stream = await trio.open_unix_socket(str(tmp_path / "events"))
        publisher.publish(Notification(NoticeKind.BOOT))
        await stream.receive_some(100)
        for _ in range(events.WAITING_MAX * 4):
            publisher.publish(Notification(NoticeKind.USER, "x" * 4000))
    await stream.aclose()


ODD = st.none() | st.floats() | st.integers() | st.text(max_size=20) | st.lists(st.none(), max_size=2)


@given(
    st.binary(max_size=200)
    | st.fixed_dictionaries(dict.fromkeys(("time", "machine", "event", "text"), ODD)).map(
        lambda fields: json.dumps(fields).encode()
    )
)
def test_any_line_is_an_event_or_none(line: bytes) -> None:
    event = decode_event(line)
    assert event is None or isinstance(event.text, str)


@given(st.text())
def test_events_survive(text: str) -> None:
    event = Event(1700000000.25, "m", "user", text)
    assert event.encode().count(b"\n") == 1
    assert decode_event(event.encode()) == event


async def test_watching_machines_that_come_and_go(tmp_path: Path) -> None:
    heard, expected = Heard(), []
    top = tmp_path / ".uml"
    async with trio.open_nursery() as nursery:
        await nursery.start(watch, top, ["a", "b"], heard)
        for name in ("a", "b", "c", "a"):
            (top / name).mkdir(parents=True, exist_ok=True)
            async with publishing(top / name / "events", name) as publisher:
                publisher.publish(Notification(NoticeKind.BOOT))
                if name != "c":
                    expected += [(name, "boot", ""), (name, "exit", "")]
                    assert await heard.number(len(expected) - 1) == expected[:-1]
                    publisher.publish(Notification(NoticeKind.EXIT))
                    assert await heard.number(len(expected)) == expected
        assert len(heard.events) == len(expected)
        nursery.cancel_scope.cancel()


async def test_what_was_before_is_not_told_and_nothing_twice(tmp_path: Path) -> None:
    heard = Heard()
    (tmp_path / "m").mkdir()
    async with publishing(tmp_path / "m" / "events", "m") as publisher:
        publisher.publish(Notification(NoticeKind.BOOT))
        async with trio.open_nursery() as nursery:
            await nursery.start(watch, tmp_path, [], heard)
            while not followers(publisher):
                await trio.lowlevel.checkpoint()
            publisher.publish(Notification(NoticeKind.USER, "now"))
            assert await heard.number(1) == [("m", "user", "now")]
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("option", [[], ["--json"]])
async def test_uml_watch(tmp_path: Path, option: list[str]) -> None:
    place = tmp_path / ".uml" / "m"
    place.mkdir(parents=True)
    environment = {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "TZ": "UTC"}
    command = [*UML, "watch", *option]
    async with publishing(place / "events", "m") as publisher, trio.open_nursery() as nursery:
        run = partial(trio.run_process, command, stdout=subprocess.PIPE, env=environment, check=False)
        process = await nursery.start(run)
        with trio.fail_after(LONG):
            while not followers(publisher):
                await trio.lowlevel.checkpoint()
            publisher.publish(Notification(NoticeKind.USER, "hello\nyou \x1b[2J\n"))
            line = ""
            while not line.endswith("\n"):
                line += (await process.stdout.receive_some()).decode()
        nursery.cancel_scope.cancel()
        await process.stdout.aclose()
    if option:
        fields = json.loads(line)
        assert (fields["machine"], fields["event"], fields["text"]) == ("m", "user", "hello\nyou \x1b[2J\n")
    else:
        assert line[20:] == "m user hello you \\x1b[2J\n"


async def test_no_place_for_the_sockets(tmp_path: Path) -> None:
    with pytest.raises(UmlError, match="cannot be made"), listening(tmp_path / "missing" / "notify"):
        pass
    with contextlib.suppress(UmlError, OSError, BaseExceptionGroup):
        async with publishing(tmp_path / "missing" / "events", "m"):
            pytest.fail("there is no such directory")
