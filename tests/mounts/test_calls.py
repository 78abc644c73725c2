"""The calls of the table in docs/mounting.md, through a mount. `tests/guest/test_sharing.py` has them in a guest."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.calls import PROGRAM, SAYS, prepare, said
from tests.mounts.server import mounted

APART = {"auto": {}, "never": {"shared_mapping": "ENODEV"}, "always": {"hole": "False"}}


@pytest.mark.parametrize("cache", APART)
def test_each(cache: str, tmp_path: Path) -> None:
    beneath, above = tmp_path / "beneath", tmp_path / "above"
    beneath.mkdir()
    above.mkdir()
    prepare(beneath)
    with mounted(beneath, above, f"cache={cache}"):
        words = [sys.executable, "-c", PROGRAM, str(above)]
        output = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout
    assert said(output) == SAYS | APART[cache]
    assert (beneath / "copy").read_bytes() == b"content"
    assert (beneath / "file").stat().st_blocks * 512 >= 1 << 20
