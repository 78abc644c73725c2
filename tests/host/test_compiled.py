"""Programs of ours: compiled at their first use, or once for all when the project is installed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from runtime.host import cache
from runtime.host import compiled as programs
from runtime.host.compiled import compiled, install, installed
from umlfs.errors import UmlError

SOURCE = "int main(void) { return STATUS; }\n"


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program that gives 7, for an installation and a cache of its own."""
    monkeypatch.setattr(programs, "INSTALLED", tmp_path / "lib")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "program.c"
    path.write_text(SOURCE.replace("STATUS", "7"))
    return path


def without_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "/bin/false")


def test_compiled_once(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert installed("p", [source]) is None
    program = compiled("p", [source], "a program")
    without_compiler(monkeypatch)
    assert compiled("p", [source], "a program") == program
    source.write_text(SOURCE.replace("STATUS", "8"))
    with pytest.raises(UmlError, match="/bin/false cannot make a program; install one"):
        compiled("p", [source], "a program")


def test_what_a_power_cut_left_is_compiled_again(source: Path) -> None:
    program = compiled("p", [source], "a program")
    directory = cache.directory()
    assert directory is not None
    (kept,) = directory.glob("p-*")
    kept.write_bytes(kept.read_bytes()[:-1] + b"x")
    assert compiled("p", [source], "a program") == program


def test_installed_for_all(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.umask(0o077)
    try:
        install("p", [source], "a program")
        source.write_text(SOURCE.replace("STATUS", "9"))
        install("p", [source], "a program")
        install("p", [source], "a program")
    finally:
        os.umask(before)
    without_compiler(monkeypatch)
    fd = installed("p", [source])
    assert fd is not None
    assert subprocess.run([f"/proc/self/fd/{fd}"], pass_fds=[fd]).returncode == 9
    os.close(fd)
    (path,) = (tmp_path / "lib").iterdir()
    assert path.read_bytes() == compiled("p", [source], "a program"), "older ones are gone"
    assert path.stat().st_mode & 0o777 == 0o755
