"""Descriptions as TOML files."""

from __future__ import annotations

import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.machines.description import Description, decode, encode, load, save
from umlfs.errors import UmlError, UsageError

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
KINDS: dict[str, st.SearchStrategy[Any]] = {
    "str": TEXTS,
    "str | None": TEXTS,
    "bool": st.booleans(),
    "int": st.integers(-(2**63), 2**63 - 1),
    "tuple[str, ...]": st.lists(TEXTS, max_size=3).map(tuple),
}
VALUES = {field.name: KINDS[str(field.type)] for field in fields(Description)} | {
    "memory": st.integers(32 << 20, 1 << 30),
    "ubd_driver": st.sampled_from(["virtio", "native"]),
    "jail": st.sampled_from(["auto", "strict", "off"]),
    "seccomp": st.sampled_from(["auto", "on", "off"]),
}


@given(st.fixed_dictionaries({}, optional=VALUES))
def test_round_trip(values: dict[str, Any]) -> None:
    description = Description(**values)
    assert decode(tomllib.loads(encode(description))) == description


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "machine.toml"
    description = Description(umid="web", root="humfs:debian", memory=512 << 20)
    save(description, path)
    assert path.read_text().splitlines()[1:] == ['umid = "web"', 'memory = "512M"', 'root = "humfs:debian"']
    assert load(path) == description


@pytest.mark.parametrize(
    "text",
    [
        "umid = 3",
        "colour = 1",
        "mounts = 'x'",
        "mounts = [1]",
        "memory = 'x'",
        "reboot = 1",
        "umid",
        "ubd_driver='x'",
        "jail='x'",
    ],
)
def test_what_is_no_description(text: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"bad\.toml"):
        load(path)


def test_files_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(UmlError, match="cannot be read"):
        load(tmp_path / "none.toml")
    with pytest.raises(UmlError, match="cannot be written"):
        save(Description(), tmp_path / "none/none.toml")
    with pytest.raises(UsageError, match="no UTF-8"):
        encode(Description(root="\udcff"))


def test_every_key_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs/machines.md").read_text()
    missing = [field.name for field in fields(Description) if f"\n| `{field.name}` | " not in page]
    assert missing == []
