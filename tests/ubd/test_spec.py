"""The words of the kernel's command line: what it takes, and what it says to the rest."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umlfs.errors import UsageError
from umlfs.ubd import Spec, parse


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ubd0=root", Spec(0, "root")),
        ("ubda=root", Spec(0, "root")),
        ("ubdp=root", Spec(15, "root")),
        ("ubd0x3=f", Spec(3, "f")),
        ("ubd010=f", Spec(8, "f")),
        ("ubd1=cow,back", Spec(1, "cow", "back")),
        ("ubd1=cow:back", Spec(1, "cow", "back")),
        ("ubd1=cow,back:SER", Spec(1, "cow", "back", "SER")),
        ("ubd3=f::s", Spec(3, "f", None, "s")),
        ("ubd0=file,,SERIAL", Spec(0, "file", None, "SERIAL")),
        ("ubd2rsct=f", Spec(2, "f", read_only=True, sync=True, shared=True, no_trim=True)),
        ("ubdbd=f", Spec(1, "f", plain=True)),
        ("ubd1=raw:f", Spec(1, "f", plain=True)),
        ("ubd1=raw,f", Spec(1, "raw", "f")),
        ("ubd1=raw:f,,S", Spec(1, "f", None, "S", plain=True)),
        ("ubd0rrrrrr=f", Spec(0, "f", read_only=True)),
    ],
)
def test_words_that_the_driver_takes(text: str, expected: Spec) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("udb0=f", "ubd -> udb TYPO"),
        ("ubd=f", "Couldn't parse device number"),
        ("ubdA=f", "Couldn't parse device number"),
        ("ubd16=f", "Device number out of range"),
        (f"ubd{'9' * 9999}=f", "Device number out of range"),
        (f"ubd0x{'f' * 9999}=f", "Device number out of range"),
        ("ubd0=a\0b", "no path holds a NUL"),
        ("ubdq=f", "Device number out of range"),
        ("ubd0x=f", "Expected '=' or flag letter"),
        ("ubd5x=f", "Expected '=' or flag letter"),
        ("ubd0", "Expected '=' or flag letter"),
        ("ubd0rrrrrrr=f", "Too many flags specified"),
        ("ubd5d=a,b", "Can't specify both 'd' and a cow file"),
        ("ubd0=", "no file named"),
        ("ubd0=,back", "no file named"),
        ("ubd0=a,b,c,d", "more than a file"),
        ("ubd0=qcow2:f", "what a file is, is found out"),
        ("ubd0=raw:a,b", "Can't specify both 'd' and a cow file"),
        ("hda=f", "does not begin with 'ubd'"),
    ],
)
def test_words_that_it_refuses(text: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        parse(text)


@given(
    st.builds(
        Spec,
        st.integers(0, 15),
        st.text("abc/.-_", min_size=1),
        st.none() | st.text("xyz/", min_size=1),
        st.none() | st.text("SER123", min_size=1),
        st.booleans(),
        st.booleans(),
        st.just(False),
        st.booleans(),
        st.booleans(),
    )
)
def test_a_spec_written_out_means_the_same(spec: Spec) -> None:
    assert parse(str(spec)) == spec


@given(st.text())
def test_no_text_does_worse_than_a_usage_error(text: str) -> None:
    with contextlib.suppress(UsageError):
        parse("ubd" + text)
