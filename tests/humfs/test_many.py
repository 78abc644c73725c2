"""A million files (fewer without --long): memory stays bounded."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).parents[2]
FEW = 10_000
MEMORY = 300 << 20


def take(root: Path, count: int) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.humfs.many", str(root), str(count)]
    done = subprocess.run(command, cwd=REPO, check=True, capture_output=True, text=True)
    shutil.rmtree(root)
    took: dict[str, float] = json.loads(done.stdout)
    print(count, took)
    return took


def test_memory_is_bounded(tmp_path: Path, long: bool) -> None:
    count = 1_000_000 if long else 2 * FEW
    few, many = take(tmp_path / "few", FEW), take(tmp_path / "many", count)
    assert many["memory"] < MEMORY
    if not long:
        assert many["memory"] < few["memory"] + (20 << 20)
