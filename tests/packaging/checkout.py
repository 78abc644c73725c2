"""A copy of the checkout, which stays as it is, to make packages of."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.ordinary import ROOT


def copy_checkout(place: Path) -> Path:
    """Put all that git knows or would know there, but for the tests."""
    listed = subprocess.run(
        ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    files = [name for name in listed.stdout.decode().split("\0") if name and not name.startswith("tests/")]
    for name in filter(lambda name: (ROOT / name).is_file(), files):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes((ROOT / name).read_bytes())
        (place / name).chmod((ROOT / name).stat().st_mode & 0o777)
    return place
