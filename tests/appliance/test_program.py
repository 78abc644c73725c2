"""The filer is compiled once, and only by a compiler."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.appliance.program import program
from runtime.guest.initramfs import _complaint
from runtime.host import compiled
from umlfs.errors import UmlError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(compiled, "INSTALLED", tmp_path / "nothing installed")
    return tmp_path / "umlfs"


def test_it_is_static_and_kept(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = program()
    path = tmp_path / "filer"
    path.write_bytes(content)
    assert _complaint(path) is None
    monkeypatch.setenv("CC", "/bin/false")
    assert program() == content
    (kept,) = cache.iterdir()
    kept.write_bytes(kept.read_bytes()[:-40])
    with pytest.raises(UmlError, match="install one with `apt install gcc"):
        program()


def test_no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UmlError, match="no C compiler on this host"):
        program()
