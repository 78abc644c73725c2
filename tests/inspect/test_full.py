"""Disks that are full, those in images and those that images are on: nothing that is missing ends with status 0."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import needs
from tests.ordinary import ROOT

pytestmark = pytest.mark.guest

FULL_HOST = """\
mount -t tmpfs -o size=6M full "$1"
cd "$1"
mke2fs -qF -t ext4 it.img 64M >/dev/null
shift
"$@" cp ../big it.img:/big && echo "cp ended well"
"$@" cp it.img:/big back 2>&1 && cmp ../big back && echo "it is there"
rm -f back
"$@" mkdir it.img:/big && echo "mkdir ended well"
"$@" edit --editor "cp ../big" it.img:/small && echo "edit ended well"
:
"""


def run(script: str, place: Path) -> subprocess.CompletedProcess[str]:
    place.mkdir()
    program = [sys.executable, "-P", "-c", "from runtime.cli import main; main()"]
    words = [*needs.mount_namespace(), "sh", "-c", script, "sh", str(place), *program]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=200, check=False)


def test_the_disk_that_an_image_is_on(tmp_path: Path) -> None:
    needs.program("mke2fs")
    (tmp_path / "big").write_bytes(os.urandom(20 << 20))
    done = run(FULL_HOST, tmp_path / "full")
    assert "ended well" not in done.stdout, done
    assert "No space left on device" in done.stderr
    assert "not all" in done.stderr


def test_the_disk_in_an_image(tmp_path: Path) -> None:
    """Nothing is left of the copy, and what was there stays, with what an editor made of it on this host."""
    image = tmp_path / "it.img"
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/small").write_text("small\n")
    subprocess.run(
        [needs.program("mke2fs"), "-qF", "-t", "ext4", "-d", tmp_path / "tree", image, "8M"],
        check=True,
        capture_output=True,
    )
    big = tmp_path / "big"
    big.write_bytes(os.urandom(20 << 20))
    script = """\
    cd "$1"/..
    shift
    "$@" cp big it.img:/big && echo "cp ended well"
    "$@" edit --editor "cp big" it.img:/small && echo "edit ended well"
    "$@" ls it.img:/
    "$@" cat it.img:/small
    """
    done = run(script, tmp_path / "place")
    assert done.stdout == "lost+found\nsmall\nsmall\n", done
    lines = done.stderr.splitlines()
    assert lines[0].endswith("it.img:/big: No space left on device; nothing is left of the copy; make room there")
    start, _, draft = lines[1].partition("; what you wrote is in ")
    assert start.endswith("it.img:/small: No space left on device")
    assert Path(draft).read_bytes() == big.read_bytes()
    Path(draft).unlink()
    Path(draft).parent.rmdir()
