"""The packer, on directories of this host: what GNU tar packs, it packs, and GNU tar unpacks it."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest

from runtime.appliance.program import SOURCES
from runtime.host.compiled import FLAGS
from runtime.images.streams import TAR
from tests import needs
from tests.images import entries

MAIN = """\
#include <fcntl.h>
int pack(int root, int output, int errors);
int main(int count, char **words) { return count < 2 || pack(open(words[1], O_RDONLY | O_DIRECTORY), 1, 2); }
"""


@pytest.fixture(scope="module")
def packer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("packer")
    (directory / "main.c").write_text(MAIN)
    compiler: list[str | Path] = [needs.program("gcc"), *FLAGS, "-Werror", "-o", directory / "packer"]
    subprocess.run([*compiler, directory / "main.c", SOURCES[1]], check=True)
    return directory / "packer"


def packed(packer: Path, tree: Path, archive: Path) -> tuple[int, str]:
    """Its exit status, and what it says."""
    with archive.open("wb") as output:
        done = subprocess.run([packer, tree], stdout=output, stderr=subprocess.PIPE, text=True, check=False)
    assert archive.stat().st_size % 10240 == 0
    return done.returncode, done.stderr


@pytest.mark.real_root
def test_it_packs_what_gnu_tar_does(packer: Path, tmp_path: Path) -> None:
    tree, ours, theirs = tmp_path / "tree", tmp_path / "ours.tar", tmp_path / "theirs.tar"
    entries.make_tree(tree)
    (tree / os.fsdecode(b"not utf-8 \xff")).write_bytes(b"x" * 512)
    (tree / os.fsdecode(b"\xfe" * 150)).symlink_to(os.fsdecode(b"\xfd" * 120))
    (tree / "día ☂").write_bytes(b"")
    os.link(tree / "día ☂", tree / os.fsdecode(b"hard \xff" * 30))
    for number, (name, time) in enumerate({"old": -1_500_000_000, "older": -3_000_000_000, "late": 1 << 62}.items()):
        (tree / name).write_bytes(b"n" * (number * 20_000))
        os.utime(tree / name, ns=(0, time))
    os.chown(tree / "old", 3_000_000, 4_000_000_000)
    (tree / "hole").touch()
    os.truncate(tree / "hole", 1 << 24)
    assert packed(packer, tree, ours) == (0, "")
    subprocess.run(["tar", *TAR, f"--directory={tree}", "--file", theirs, "."], check=True)
    assert entries.of_file(ours) == entries.of_file(theirs)
    out = tmp_path / "out"
    out.mkdir()
    options = ["--xattrs", "--xattrs-include=*", "--numeric-owner", "--same-permissions", "--sparse"]
    subprocess.run(["tar", "--extract", *options, f"--directory={out}", "--file", ours], check=True)
    assert packed(packer, out, theirs) == (0, "")
    assert entries.of_file(theirs) == entries.of_file(ours)


def test_what_it_leaves_out(packer: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for name in ("lost+found", "sub/lost+found"):
        (tree / name).mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(tree / "sub/a\nb"))
        assert packed(packer, tree, tmp_path / "x.tar") == (0, "tar: ./sub/a?b: socket ignored\n")
    found = set(entries.of_file(tmp_path / "x.tar")[0])
    assert found == {b".", b"sub", b"sub/lost+found"}
    (tree / "lost+found/x").touch()
    packed(packer, tree, tmp_path / "x.tar")
    assert b"lost+found/x" in entries.of_file(tmp_path / "x.tar")[0]


def test_nobody_reads(packer: Path, tmp_path: Path) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run([packer, tmp_path], stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 1
