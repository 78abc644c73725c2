"""Destinations that fill up: one line that says so, and nothing is left."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import needs
from tests.guest.disks import MIB
from tests.images.making import disk_of, make
from tests.ordinary import ROOT
from umlfs.cow.create import create

SCRIPT = """\
mount -t tmpfs -o size=2M full "$1"
cd "$1"
[ -z "$2" ] || cp --sparse=always "$2" .
kept=$2
shift 2
if "$@" 2>errors; then status=0; else status=$?; fi
[ $status = 1 ] || cat errors
[ "$(wc -l <errors)" = 1 ] || cat errors
grep -Eq '^uml: [^ ]*: (.*: )?No space left on device' errors || cat errors
rm errors
[ -z "$kept" ] || cmp "$kept" "${kept##*/}"
echo "status $status"
ls -A
"""
"""In a mount namespace of its own, which takes the filesystem with it."""


def on_a_full_disk(place: Path, *words: str | Path, image: Path | None = None, path: str = "") -> str:
    """What `uml image WORDS` says with a small disk as its working directory if it is not what it should; its exit
    status; and what is left. `image` is there and must stay as it is. `path` is where programs are looked for first."""
    place.mkdir(exist_ok=True)
    program = [sys.executable, "-P", "-c", "from runtime.cli import main; main()", "image"]
    command = [*needs.mount_namespace(), "sh", "-ec", SCRIPT, "sh", place, str(image or ""), *program, *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment["PATH"] = f"{path}:{environment['PATH']}"
    done = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False
    )
    return done.stdout + done.stderr


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A tree with more in it than there is room for."""
    (tmp_path / "tree/sub").mkdir(parents=True)
    (tmp_path / "tree/sub/file").write_bytes(os.urandom(3 * MIB))
    return tmp_path / "tree"


@pytest.mark.parametrize("name", ["x.img", "x.qcow2", "x.humfs", "dir:x", "x.tar", "x.tar.gz", "x.oci"])
def test_files(large: Path, tmp_path: Path, name: str) -> None:
    assert on_a_full_disk(tmp_path / "full", "convert", large, name) == "status 1\n"


async def test_disks(large: Path, tmp_path: Path) -> None:
    image = await make(large, tmp_path / "x.img")
    create(str(tmp_path / "cow"), str(image))
    disk = disk_of(tmp_path / "disk", image, "label: gpt\nstart=4096\n")
    for source, name in ((image, "y.qcow2"), (tmp_path / "cow", "y.img"), (f"{disk}:1", "y.img")):
        assert on_a_full_disk(tmp_path / "full", "convert", source, name) == "status 1\n", (source, name)


async def test_changes_of_an_image(tmp_path: Path) -> None:
    """Those that make a new one, which takes the old one's place if all goes well."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/file").write_bytes(os.urandom(MIB))
    image = await make(tmp_path / "tree", tmp_path / "x.img", size=16 * MIB)
    place = tmp_path / "full"
    assert on_a_full_disk(place, "resize", "x.img", "8M", image=image) == "status 1\nx.img\n"
    qcow2 = await make(image, tmp_path / "x.qcow2")
    assert on_a_full_disk(place, "compact", "x.qcow2", image=qcow2) == "status 1\nx.qcow2\n"


@pytest.mark.parametrize("name", ["x.img", "x.tar"])
def test_a_build(large: Path, tmp_path: Path, name: str) -> None:
    """With packages that come from nowhere."""
    programs = tmp_path / "programs"
    programs.mkdir()
    packages = programs / "mmdebstrap"
    packages.write_text(f"#!/bin/sh\nexec tar --create --directory={large} .\n")
    packages.chmod(0o755)
    words = ("build", name, "--suite", "bookworm", "--root-password", "secret")
    assert on_a_full_disk(tmp_path / "full", *words, path=str(programs)) == "status 1\n"
