"""`uml mount`: wrong usage."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime import cli


def test_a_list_and_a_mount_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.invoke(["mount", str(tmp_path), str(tmp_path / "m"), "--json"]) == 2
    assert capsys.readouterr().err.startswith("uml: --json: only for the list of mounts; ")
