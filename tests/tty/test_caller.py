"""What a command in a guest gets of its caller's environment."""

from __future__ import annotations

import pytest

from runtime.tty import caller


def test_root_in_a_guest_finds_root_s_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/opt/bin:/usr/bin:/sbin")
    assert caller.environment("/", None, False)["PATH"] == "/opt/bin:/usr/bin:/sbin:/usr/sbin"
    assert caller.environment("/", "nobody", False)["PATH"] == "/opt/bin:/usr/bin:/sbin"
    assert caller.environment("humfs:x", None, False)["PATH"] == caller.DEFAULT_PATH
