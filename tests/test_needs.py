from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests import needs


def test_program() -> None:
    assert Path(needs.program("sh")).name == "sh"
    assert needs.program("userdel").endswith("/sbin/userdel")
    with pytest.raises(pytest.fail.Exception, match="needs the program no-such-program: "):
        needs.program("no-such-program")


def test_path(tmp_path: Path) -> None:
    assert needs.path(tmp_path) == tmp_path
    assert needs.path("/dev/null") == Path("/dev/null")
    with pytest.raises(pytest.fail.Exception, match="needs access to /dev/nothing: chmod 666"):
        needs.path("/dev/nothing", "chmod 666")


def test_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    needs.root()
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(pytest.fail.Exception, match="needs root"):
        needs.root()


def test_as_root_is_root() -> None:
    assert subprocess.check_output([*needs.as_root(), "id", "-u"]) == b"0\n"


def test_as_nobody_is_not() -> None:
    assert subprocess.check_output([*needs.as_nobody(), "id", "-u"]) != b"0\n"
