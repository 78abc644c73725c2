"""Disks of the host that fail while a guest works: an error to the guest, and never the end of the machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import needs

pytestmark = pytest.mark.guest

EXPECTED = """\
full: kept: No space left on device: kept
read_only: kept: Read-only file system: kept
read_only_contents: kept: Read-only file system: kept: kept
locked: kept: Device or resource busy: kept
removed: kept: No such file or directory: kept
alive: alive
removed/fs: not closed in order: removed/fs/.superblock: No such file or directory; the next use compares all of it
full, opened again: kept
read_only, opened again: kept
read_only_contents, opened again: kept
locked, opened again: kept
"""


def test_a_failing_disk_below_humfs(tmp_path: Path) -> None:
    """Full, read-only (the database, or the contents of files), locked by another program, removed, cut short. What a
    guest sees of the last depends on what SQLite still has in memory."""
    done = subprocess.run(
        [*needs.mount_namespace(), sys.executable, "-m", "tests.guest.faults", tmp_path],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert "Traceback" not in done.stderr
    lines = done.stdout.splitlines(keepends=True)
    assert "".join(line for line in lines if not line.startswith("cut_short")) == EXPECTED, done.stderr
    assert len(lines) == EXPECTED.count("\n") + 1
