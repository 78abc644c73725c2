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
    description = Description(umid="web", root="packages:", memory=512 << 20)
    save(description, path)
    assert path.read_text().splitlines()[1:] == ['umid = "web"', 'memory = "512M"', 'root = "packages:"']
    assert load(path) == description


def test_paths_are_from_the_place_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is below it stays relative in it: both can be moved. What is elsewhere is named in full."""
    here, there = tmp_path / "here", tmp_path / "there"
    (here / "below/root").mkdir(parents=True)
    there.mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(here)
    given = Description(
        kernel="debian",
        root="humfs:below/root",
        mounts=("/a=.:ro", "/b=cow:x,below/y", "/c=nbd://host/x", "/d=/abs:cache=always"),
        ubds=("ubd0r=below/cow,../base,serial", "ubd1=nbd+unix:///d?socket=x"),
        consoles=("con0=null,log:log", "con1=unix:sock", "con2=port:9000"),
        time_travel="ext:1:clock",
        initrd="initrd",
    )
    save(given, here / "it.toml")
    text = (here / "it.toml").read_text()
    for word in (
        "humfs:below/root",
        "/a=.:ro",
        "/b=cow:x,below/y",
        "con0=null,log:log",
        "ext:1:clock",
        "/c=nbd://host/x",
    ):
        assert f'"{word}"' in text
    assert f'"ubd0r=below/cow,{tmp_path}/base,serial"' in text
    (here / "it.toml").rename(here / "below/it.toml")
    monkeypatch.chdir(there)
    below = here / "below"
    found = load(Path("../here/below/it.toml"))
    assert found.kernel == "debian"
    assert found.root == f"humfs:{below}/below/root"
    assert found.mounts == (f"/a={below}:ro", f"/b=cow:{below}/x,{below}/below/y", *given.mounts[2:])
    assert found.ubds == (f"ubd0r={below}/below/cow,{tmp_path}/base,serial", given.ubds[1])
    assert found.consoles == (f"con0=null,log:{below}/log", f"con1=unix:{below}/sock", "con2=port:9000")
    assert (found.time_travel, found.initrd) == (f"ext:1:{below}/clock", f"{below}/initrd")
    save(found, there / "it.toml")
    assert load(there / "it.toml") == found
    (there / "home.toml").write_text('root = "hostfs:~/tree"\nkernel = "~/linux"\nmounts = ["/x=~"]\n')
    at_home = load(there / "home.toml")
    assert (at_home.root, at_home.kernel) == (f"hostfs:{tmp_path}/home/tree", f"{tmp_path}/home/linux")
    assert at_home.mounts == (f"/x={tmp_path}/home",)


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
