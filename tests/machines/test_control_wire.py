"""The control socket's codec, and the socket itself against those who do not speak it."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from runtime.machines.channel import ControlChannel
from runtime.machines.control_wire import (
    LINE_MAX,
    Decoder,
    Message,
    ProtocolError,
    encode,
    failure,
    raise_failure,
    words,
)
from runtime.machines.service import serve
from umlfs.errors import UmlError, UsageError

MESSAGES = st.dictionaries(st.text(), st.text() | st.integers() | st.lists(st.text()))


@given(st.lists(MESSAGES), st.integers(1, 50))
def test_messages_arrive_however_they_are_cut(messages: list[Message], step: int) -> None:
    data = b"".join(map(encode, messages))
    decoder = Decoder()
    found: list[Message] = []
    for start in range(0, len(data), step):
        decoder.feed(data[start : start + step])
        found += decoder.messages()
    assert found == messages


@given(st.lists(st.binary()))
def test_nonsense_is_refused(pieces: list[bytes]) -> None:
    decoder = Decoder()
    try:
        for piece in pieces:
            decoder.feed(piece)
            for message in decoder.messages():
                assert isinstance(message, dict)
    except ProtocolError:
        pass


def test_a_line_without_end() -> None:
    decoder = Decoder()
    decoder.feed(b"x" * LINE_MAX)
    with pytest.raises(ProtocolError):
        decoder.feed(b"x")


def test_errors_and_words() -> None:
    for error in (UmlError("what", "way", details="more"), UsageError("what")):
        with pytest.raises(UmlError) as caught:
            raise_failure(json.loads(encode(failure(error))))
        told = caught.value
        assert (told.what, told.way_out, told.status) == (error.what, error.way_out, error.status)
        assert told.details == error.details
    raise_failure({"exit": 0})
    for wrong in ("x", [1], ["a\0"]):
        with pytest.raises(ProtocolError):
            words({"command": wrong}, "command")


async def test_service(tmp_path: Path, nursery: trio.Nursery) -> None:
    async def echo(channel: ControlChannel, request: Message) -> Message:
        return {"got": request["text"], "fds": len(channel.descriptors)}

    async def fail(channel: ControlChannel, request: Message) -> Message:
        raise UmlError("no", "try")

    path = tmp_path / "control"
    await nursery.start(serve, path, {"echo": echo, "fail": fail})
    assert path.stat().st_mode & 0o777 == 0o600
    with await connected(path) as channel:
        await channel.send({"do": "echo", "text": "\udcff"}, [0, 1, 2])
        assert await channel.receive() == {"got": "\udcff", "fds": 3}
        assert await channel.receive() is None
    for request, text in (({"do": "fail"}, "no"), ({"do": "x"}, "unknown request"), ({}, "unknown request")):
        with await connected(path) as channel:
            await channel.send(request)
            answer = await channel.receive()
            assert answer is not None
            assert text in answer["error"]
    stream = await trio.open_unix_socket(str(path))
    async with stream:
        await stream.send_all(b"GET / HTTP/1.1\r\n")
        assert b"not the protocol" in await stream.receive_some()


@pytest.mark.logs_warnings
async def test_a_defect_of_ours_ends_one_request_only(tmp_path: Path, nursery: trio.Nursery) -> None:
    async def broken(channel: ControlChannel, request: Message) -> Message:
        raise KeyError("defect")

    await nursery.start(serve, tmp_path / "control", {"broken": broken})
    for _ in range(2):
        with await connected(tmp_path / "control") as channel:
            await channel.send({"do": "broken"})
            answer = await channel.receive()
            assert answer is not None
            assert "internal error" in answer["error"]


async def connected(path: Path) -> ControlChannel:
    connection = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    await connection.connect(str(path))
    return ControlChannel(connection)
