"""The calls of the table in docs/mounting.md, through a mount. `tests/guest/test_sharing.py` has them in a guest."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.calls import PROGRAM, SAYS, prepare, said
from tests.mounts.server import mounted

MAPS_DIRECT = tuple(map(int, os.uname().release.split(".")[:2])) >= (6, 6)
"""Whether the host's kernel has shared mappings of files that it does not cache."""
WAYS: dict[str, dict[str, dict[str, str]]] = {
    "own": {"auto": {}, "never": {} if MAPS_DIRECT else {"shared_mapping": "ENODEV"}, "always": {"hole": "False"}},
    "pyfuse3": {"auto": {}, "never": {"shared_mapping": "ENODEV"}, "always": {"hole": "False"}},
}


@pytest.mark.parametrize("cache", ["auto", "never", "always"])
@pytest.mark.parametrize("way", WAYS)
def test_each(way: str, cache: str, tmp_path: Path) -> None:
    beneath, above = tmp_path / "beneath", tmp_path / "above"
    beneath.mkdir()
    above.mkdir()
    prepare(beneath)
    with mounted(beneath, above, f"cache={cache}", *(["pyfuse3"] if way == "pyfuse3" else [])):
        words = [sys.executable, "-c", PROGRAM, str(above)]
        output = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout
    assert said(output) == SAYS | WAYS[way][cache]
    assert (beneath / "copy").read_bytes() == b"content"
    assert (beneath / "file").stat().st_blocks * 512 >= 1 << 20
