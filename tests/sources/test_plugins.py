"""Entry points, read without importlib.metadata: the same are found."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

import pytest

from umlfs.sources.plugins import entry_points, load

TEXT = """\
[console_scripts]
uml = nowhere:main

[umlfs.sources]
first = pack.age:kind
# a comment
spaced   =   other : attr  [extra]
broken

[umlfs.sourcesandmore]
no = no:no
"""


def install(directory: Path, text: str, name: str = "thing-1.dist-info") -> None:
    (directory / name).mkdir(parents=True)
    (directory / name / "entry_points.txt").write_text(text)


def test_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path / "one", TEXT)
    install(tmp_path / "two", "[umlfs.sources]\nfirst=later:x\nsecond=b:c\n", "x.egg-info")
    (tmp_path / "two/empty.dist-info").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path / name) for name in ("one", "nowhere", "two", "one")])
    found = {"first": "pack.age:kind", "spaced": "other : attr", "second": "b:c"}
    assert entry_points("umlfs.sources") == found
    assert entry_points("another") == {}


def test_as_the_standard_library_reads_them() -> None:
    expected = {point.name: point.value for point in importlib.metadata.entry_points(group="umlfs.sources")}
    assert entry_points("umlfs.sources") == expected
    assert "hostfs" in expected


def test_loading() -> None:
    assert load("pathlib:Path") is Path
    with pytest.raises(ImportError):
        load("no.such.module:x")
    with pytest.raises(AttributeError):
        load("pathlib:no_such_thing")
