"""The protocol of the socket `lines`."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.consoles.sharing_wire import (
    CONTENT_MAX,
    GREETING_MAX,
    Answer,
    Decoder,
    Frame,
    FrameKind,
    ProtocolError,
    Request,
    size_frame,
)

FRAMES = st.builds(Frame, st.sampled_from([FrameKind.DATA, FrameKind.NOTICE]), st.binary(max_size=200)) | st.builds(
    size_frame, st.integers(0, 65535), st.integers(0, 65535)
)


def test_requests_and_answers() -> None:
    for request in (Request(), Request("con1"), Request("ssl0", 24, 80)):
        assert Request.decode(request.encode()) == request
    assert Request.decode(b'{"line": "con1", "rows": 24, "more": []}') == Request("con1", 24)
    for answer in (Answer("con1", True), Answer("con2"), Answer(error="no", way_out="do"), Answer(error="no")):
        assert Answer.decode(answer.encode()) == answer


@pytest.mark.parametrize(
    "line", [b"", b"x", b"[]", b'{"line": 1}', b'{"rows": "1"}', b'{"rows": true}', b"\xff", b"[" * 4000]
)
def test_what_is_no_request(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        Request.decode(line)
    with pytest.raises(ProtocolError):
        Answer.decode(line)


@given(st.lists(FRAMES), st.integers(1, 50))
def test_frames_arrive_however_they_are_cut(frames: list[Frame], step: int) -> None:
    wire = Request("con1").encode() + b"".join(frame.encode() for frame in frames)
    decoder, got = Decoder(), []
    for start in range(0, len(wire), step):
        decoder.receive(wire[start : start + step])
        got += list(decoder.frames())
    assert decoder.greeting is not None
    assert json.loads(decoder.greeting) == {"line": "con1"}
    assert got == frames


def test_sizes() -> None:
    assert size_frame(24, 80).size == (24, 80)
    assert size_frame(1 << 20, 80).size == (65535, 80)


@given(st.binary(max_size=100))
def test_anything_is_frames_or_an_error(data: bytes) -> None:
    decoder = Decoder()
    decoder.receive(b"{}\n")
    decoder.receive(data)
    try:
        for frame in decoder.frames():
            assert len(frame.content) <= CONTENT_MAX
    except ProtocolError:
        pass


def test_limits() -> None:
    decoder = Decoder()
    with pytest.raises(ProtocolError, match="no end"):
        decoder.receive(b"x" * (GREETING_MAX + 1))
    with pytest.raises(ProtocolError, match="no end"):
        Decoder().receive(b"x" * (GREETING_MAX + 1) + b"\n")
    decoder = Decoder()
    decoder.receive(b"\n\x00\x00\x01\x00\x01")
    with pytest.raises(ProtocolError, match="65537 bytes"):
        list(decoder.frames())
    decoder = Decoder()
    decoder.receive(b"\n\x09\x00\x00\x00\x01x" + Frame(FrameKind.DATA, b"y").encode())
    assert list(decoder.frames()) == [Frame(FrameKind.DATA, b"y")]
