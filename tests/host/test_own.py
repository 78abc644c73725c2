"""Programs of ours in processes of their own."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from runtime.host import own


@pytest.mark.parametrize("command", [own.uml("--version"), own.module("runtime.consoles.attach")])
def test_what_lies_in_the_current_directory_is_not_run(tmp_path: Path, command: list[str]) -> None:
    for name in ("runtime", "umlfs", "click", "json"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('not ours')\n")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "not ours" not in done.stdout + done.stderr
