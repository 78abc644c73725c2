"""What is asked of a standby, as bytes."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.standby import request_wire as wire

texts = (
    st.binary(max_size=20).map(lambda data: data.replace(b"\0", b"")).map(lambda data: data.decode(errors="replace"))
)
names = st.binary(min_size=1, max_size=8).map(lambda data: data.translate(None, b"\0="))
values = st.binary(max_size=20).map(lambda data: data.replace(b"\0", b""))


@given(texts, st.integers(0, 0o777), st.lists(texts), st.dictionaries(names, values))
def test_what_is_asked_is_what_is_read(
    identity: str, umask: int, arguments: list[str], environment: dict[bytes, bytes]
) -> None:
    data = wire.encode(identity, umask, arguments, environment)
    head, body = data[: wire.LENGTH_SIZE], data[wire.LENGTH_SIZE :]
    assert wire.length(head) == len(body)
    assert wire.decode(body) == (identity, umask, arguments, environment)


@given(st.binary() | st.lists(st.binary(max_size=3)).map(lambda fields: b"\0".join(fields) + b"\0"))
def test_nonsense_is_refused(body: bytes) -> None:
    with contextlib.suppress(wire.Malformed):
        wire.decode(body)


@pytest.mark.parametrize("head", [b"", b"\1\0\0", b"\xff\xff\xff\xff"])
def test_lengths_that_cannot_be(head: bytes) -> None:
    with pytest.raises(wire.Malformed):
        wire.length(head)
