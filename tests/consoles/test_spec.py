"""The words for lines."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.consoles.spec import BOOT_CONSOLE, NULL, ChannelSpec, Line, LineKind, Pair, Specs, parse, parse_all
from umlfs.errors import UsageError


def con(number: int) -> Line:
    return Line(LineKind.CONSOLE, number)


def test_every_channel() -> None:
    words = {
        "con0=null": Pair(),
        "con1=fd:0,fd:1": Pair(ChannelSpec("fd", "0"), ChannelSpec("fd", "1")),
        "con15=pts": Pair(ChannelSpec("pts"), ChannelSpec("pts")),
        "ssl0=pty": Pair(ChannelSpec("pty"), ChannelSpec("pty")),
        "ssl63=tty:/dev/tty8": Pair(ChannelSpec("tty", "/dev/tty8"), ChannelSpec("tty", "/dev/tty8")),
        "con2=port:9000": Pair(ChannelSpec("port", "9000"), ChannelSpec("port", "9000")),
        "con3=xterm": Pair(ChannelSpec("xterm"), ChannelSpec("xterm")),
        "con4=log:/tmp/a:b": Pair(NULL, ChannelSpec("log", "/tmp/a:b")),
        "con5=pts,log:x": Pair(ChannelSpec("pts"), ChannelSpec("log", "x")),
        "con6=unix:/tmp/s": Pair(ChannelSpec("unix", "/tmp/s"), ChannelSpec("unix", "/tmp/s")),
    }
    for word, pair in words.items():
        setting = parse(word)
        assert setting.number is not None
        assert f"{Line(setting.kind, setting.number)}" == word.partition("=")[0]
        assert setting.pair == pair
        assert not setting.note


def test_defaults_and_none() -> None:
    specs = parse_all(["con=none", "ssl=null", "con3=none", "con1=pts", "con1=null"])
    assert specs == Specs({con(3): None, con(1): Pair()}, {LineKind.CONSOLE: None, LineKind.SERIAL: Pair()})
    assert list(specs.served()) == [BOOT_CONSOLE, con(1)]
    assert Specs().default(LineKind.SERIAL) == Pair()
    assert list(Specs().served()) == [BOOT_CONSOLE]


def test_a_default_is_for_all_that_are_not_named() -> None:
    served = parse_all(["con=pts", "con3=none", "con4=null", "ssl1=pts"]).served()
    assert [str(line) for line in served] == [f"con{n}" for n in range(16) if n != 3] + ["ssl1"]
    assert served[con(4)] == Pair()
    assert str(served[con(5)]) == "pts"


def test_addresses() -> None:
    assert ChannelSpec("port", "9000").address == ("127.0.0.1", 9000)
    assert ChannelSpec("port", "0.0.0.0:1").address == ("0.0.0.0", 1)
    assert ChannelSpec("port", "[::1]:1").address == ("::1", 1)


def test_the_form_of_the_howto() -> None:
    setting = parse("con1=/dev/tty8")
    assert setting.pair == Pair(ChannelSpec("tty", "/dev/tty8"), ChannelSpec("tty", "/dev/tty8"))
    assert setting.note == "con1=/dev/tty8: an old form, taken as con1=tty:/dev/tty8"
    specs = parse_all(["con1=/dev/tty8", "con2=null,/dev/tty9"])
    assert specs.notes[1].endswith("con2=null,tty:/dev/tty9")


@pytest.mark.parametrize(
    ("word", "error"),
    [
        ("con16=null", "con16=null: Device number out of range; con0 to con15 exist"),
        ("ssl64=null", "ssl64=null: Device number out of range; ssl0 to ssl63 exist"),
        ("con99999999=null", "con99999999=null: Couldn't parse device number; con0 to con15 exist"),
        ("conx=null", "conx=null: Couldn't parse device number; con0 to con15 exist"),
        ("con01=null", "con01=null: Couldn't parse device number; con0 to con15 exist"),
        ("con²=null", "con²=null: Couldn't parse device number; con0 to con15 exist"),
        ("con1=xtrem", "con1=xtrem: 'xtrem' is no channel; did you mean 'xterm'?"),
        ("con1=nullfoo", "con1=nullfoo: 'nullfoo' is no channel; did you mean 'null'?"),
        ("con1=pts,", "con1=pts,: '' is no channel; channels are null, fd:N, pty, pts, tty:/dev/ttyN, "
                      "port:[ADDRESS:]N, xterm, log:FILE, unix:SOCKET and none"),
        ("con1=fd", "con1=fd: 'fd' without its N; write fd:N"),
        ("con1=pts:3", "con1=pts:3: nothing follows 'pts'; write pts"),
        ("con1=fd:-1", "con1=fd:-1: '-1' is no descriptor number; give one from 0 to 1048576"),
        ("con1=port:70000", "con1=port:70000: '70000' is no port number; give one from 0 to 65535"),
        ("con1=port:host:1", "con1=port:host:1: 'host' is no address; for example port:0.0.0.0:9000, port:[::1]:9000"),
        ("con1=port:::1:9", "con1=port:::1:9: '::1' is no address; "
                            "an IPv6 address stands in brackets, an IPv4 one does not"),
        ("con1=a,b,c", "con1=a,b,c: more than an input and an output; no channel's name or path holds a comma"),
        ("con1=log:x,pts", "con1=log:x,pts: a log takes output only; for example null,pts"),
        ("con0=none", "con0=none: the kernel does not start without its first console; write con0=null"),
        ("mem=1", "mem=1: not a console or serial line; write con<N>=CHANNEL or ssl<N>=CHANNEL"),
    ],
)  # fmt: skip
def test_errors(word: str, error: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(word)
    assert str(caught.value) == error


def test_an_input_has_one_line() -> None:
    with pytest.raises(UsageError, match=r"con1=fd:0,fd:2: con0 has its input from fd:0; give each its own"):
        parse_all(["con0=fd:0,fd:1", "con1=fd:0,fd:2"])
    with pytest.raises(UsageError, match="has its input from unix:s"):
        parse_all(["ssl=unix:s"])
    parse_all(["con0=null,fd:2", "con1=null,fd:2", "con=port:9000"])


def test_names_of_lines() -> None:
    assert Line.parse("ssl5") == Line(LineKind.SERIAL, 5)
    assert [line.device for line in (con(3), Line(LineKind.SERIAL, 1))] == [0x403, 0x441]
    for text in ("tty1", "con", "con16", "", "conx"):
        with pytest.raises(UsageError):
            Line.parse(text)


@given(st.text(alphabet="conssl0123456789=,:nulfdptyrexmigk/[].\0²", max_size=40) | st.text(max_size=20))
def test_anything_else_is_an_error(word: str) -> None:
    for text in (word, f"con1={word}"):
        with contextlib.suppress(UsageError):
            parse_all([text])
