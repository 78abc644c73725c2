"""Leaving a line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.consoles.escape import Escape, parse_key
from umlfs.errors import UsageError


def test_the_key() -> None:
    assert Escape(0x1D).typed(b"ls\x1dmore") == (b"ls", True)
    assert Escape(1).typed(b"ls\x1dmore") == (b"ls\x1dmore", False)
    assert Escape(None).typed(b"~.\x1d") == (b"~.\x1d", False)


def test_the_tilde_at_the_beginning_of_a_line() -> None:
    escape = Escape(0x1D)
    assert escape.typed(b"~") == (b"", False)
    assert escape.typed(b".") == (b"", True)
    assert Escape(0x1D).typed(b"a~.\r~~.\r~x~.\n~.") == (b"a~.\r~.\r~x~.\n", True)


@given(st.lists(st.binary(max_size=5)))
def test_nothing_is_lost(pieces: list[bytes]) -> None:
    escape = Escape(0x1D)
    passed = b""
    for piece in [*pieces, b"\r\x1d"]:
        keys, leaves = escape.typed(piece)
        passed += keys
        if leaves:
            break
    typed = b"".join(pieces)
    assert leaves
    if b"\x1d" not in typed and b"~" not in typed:
        assert passed == typed + b"\r"


def test_names_of_keys() -> None:
    assert parse_key("^]") == 0x1D
    assert parse_key("^a") == 1
    assert parse_key("none") is None
    assert Escape(1).hint == "Ctrl-A or Enter ~. leaves"
    for text in ("", "]", "^", "^1", "^~", "ab", "^ab"):
        with pytest.raises(UsageError):
            parse_key(text)
