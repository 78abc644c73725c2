"""Telnet: what clients send, how their windows change, and what they get."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runtime.consoles.telnet_wire import SUBNEGOTIATION_MAX, Event, Resized, Telnet, Typed

IAC, DONT, DO, WONT, WILL, SB, SE = b"\xff", b"\xfe", b"\xfd", b"\xfc", b"\xfb", b"\xfa", b"\xf0"
BINARY, ECHO, SGA, NAWS = b"\0", b"\x01", b"\x03", b"\x1f"
GREETING = b"".join(
    [*(IAC + WILL + option for option in (BINARY, ECHO, SGA)), *(IAC + DO + option for option in (BINARY, SGA, NAWS))]
)


def fresh() -> Telnet:
    telnet = Telnet()
    assert telnet.take_replies() == GREETING
    return telnet


def agreed() -> Telnet:
    """A client that does all that it is asked for."""
    telnet = fresh()
    answer = b"".join(IAC + DO + option for option in (BINARY, ECHO, SGA))
    answer += b"".join(IAC + WILL + option for option in (BINARY, SGA, NAWS))
    assert telnet.receive(answer) == []
    assert telnet.take_replies() == b""
    return telnet


def typed(events: list[Event]) -> bytes:
    return b"".join(event.data for event in events if isinstance(event, Typed))


def sizes(events: list[Event]) -> list[Resized]:
    return [event for event in events if isinstance(event, Resized)]


def window(columns: int, rows: int) -> bytes:
    size = columns.to_bytes(2, "big") + rows.to_bytes(2, "big")
    return IAC + SB + NAWS + size.replace(IAC, IAC + IAC) + IAC + SE


def test_no_telnet_client_at_all() -> None:
    telnet = fresh()
    assert typed(telnet.receive(b"ls\n")) == b"ls\n"
    assert telnet.take_replies() == b""


def test_the_return_key() -> None:
    telnet = fresh()
    assert typed(telnet.receive(b"a\r\0b\r\nc\r") + telnet.receive(b"\nd\re\r\r\0f")) == b"a\rb\rc\rd\re\r\rf"
    assert typed(telnet.receive(b"\r" + IAC + IAC)) == b"\r\xff"
    assert typed(agreed().receive(b"a\r\0b\r\nc\r")) == b"a\r\0b\r\nc\r"


def test_what_the_guest_says() -> None:
    telnet = fresh()
    assert telnet.encode(b"") == b""
    assert telnet.encode(b"a\r\nb\rc\xff") == b"a\r\nb\r\0c\xff\xff"
    assert telnet.encode(b"x\r") + telnet.encode(b"\ny\r") + telnet.encode(b"z") == b"x\r\ny\r\0z"
    assert agreed().encode(b"a\r\nb\rc\xff\0") == b"a\r\nb\rc\xff\xff\0"


def test_window() -> None:
    telnet = agreed()
    assert telnet.receive(b"x" + window(80, 24) + b"y") == [Typed(b"x"), Resized(24, 80), Typed(b"y")]
    assert telnet.receive(window(255, 511)) == [Resized(511, 255)]
    assert telnet.receive(window(0, 24)) == []
    # One that was never offered, one of the wrong length, one for another option.
    assert fresh().receive(window(80, 24)) == []
    assert telnet.receive(IAC + SB + NAWS + b"\0\x50\0" + IAC + SE) == []
    assert telnet.receive(IAC + SB + b"\x18\0\x50\0\x18" + IAC + SE) == []


def test_a_subnegotiation_without_end_is_skipped() -> None:
    telnet = agreed()
    assert telnet.receive(IAC + SB + NAWS + b"x" * 1_000_000) == []
    assert len(telnet._parameter) <= SUBNEGOTIATION_MAX
    assert telnet.receive(IAC + SE + b"after") == [Typed(b"after")]
    assert telnet.receive(IAC + SB + NAWS + b"\0" + IAC + WILL + ECHO + b"after") == [Typed(b"after")]


def test_refusals_and_changes_of_mind() -> None:
    telnet = agreed()
    assert telnet.receive(IAC + WILL + b"\x18" + IAC + DO + b"\x22") == []
    assert telnet.take_replies() == IAC + DONT + b"\x18" + IAC + WONT + b"\x22"
    telnet.receive(IAC + WILL + NAWS + IAC + DO + ECHO + IAC + WONT + b"\x18")
    assert telnet.take_replies() == b""
    telnet.receive(IAC + DONT + BINARY + IAC + WONT + NAWS)
    assert telnet.take_replies() == IAC + WONT + BINARY + IAC + DONT + NAWS
    assert telnet.encode(b"\ra") == b"\r\0a"
    telnet.receive(IAC + DO + BINARY + IAC + WILL + NAWS)
    assert telnet.take_replies() == IAC + WILL + BINARY + IAC + DO + NAWS


def test_commands_that_are_keys() -> None:
    telnet = fresh()
    assert typed(telnet.receive(IAC + b"\xf4" + IAC + b"\xf8" + IAC + b"\xf1" + IAC + b"\xf7")) == b"\x03\x15\x7f"
    assert telnet.receive(IAC + b"\xf6") == []
    assert b"[Yes]" in telnet.take_replies()


@given(st.lists(st.binary(max_size=30)))
def test_two_telnets_understand_each_other(pieces: list[bytes]) -> None:
    """What one encodes the other decodes, whether they agreed on eight bits or not, but for CR LF, which is one key."""
    for sender, receiver in ((agreed(), agreed()), (fresh(), fresh())):
        got = b"".join(typed(receiver.receive(sender.encode(piece))) for piece in pieces)
        said = b"".join(pieces)
        assert got == (said if sender._ours else said.replace(b"\r\n", b"\r"))


WIRE = st.lists(
    st.sampled_from([IAC, DONT, DO, WONT, WILL, SB, SE, BINARY, NAWS, b"\r", b"\n", window(80, 24)]) | st.binary()
).map(b"".join)


@given(WIRE, st.data())
def test_where_it_is_cut_off_does_not_matter(data: bytes, draw: st.DataObject) -> None:
    whole, parts = fresh(), fresh()
    expected = whole.receive(data)
    got: list[Event] = []
    rest = data
    while rest:
        cut = draw.draw(st.integers(1, len(rest)))
        got += parts.receive(rest[:cut])
        rest = rest[cut:]
    assert typed(got) == typed(expected)
    assert sizes(got) == sizes(expected)
    replies = whole.take_replies()
    assert parts.take_replies() == replies
    assert len(replies) <= 5 * len(data)


@given(WIRE)
def test_two_polite_ends_are_done_soon(data: bytes) -> None:
    ours, theirs = fresh(), fresh()
    ours.receive(data)
    for _ in range(20):
        theirs.receive(ours.take_replies())
        ours.receive(theirs.take_replies())
    assert ours.take_replies() == b""
