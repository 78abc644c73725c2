"""A server killed at any moment leaves a tree that mounts, with all that was synced, and nothing mended silently."""

from __future__ import annotations

import hashlib
import random
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from humfs.check import check
from humfs.filesystem import HumFilesystem, open_filesystem
from humfs.volume import create
from tests.contract.filesystem import Subject
from tests.humfs.load import XATTR
from umlfs.filesystem import ROOT

REPO = Path(__file__).parents[2]
SIZE = 1 << 30
TREES = 10
"""Each is used again and again, so that what one kill leaves is there at the next."""
KILLS = 200
KILLS_SHORT = 20


def kill_under_load(root: Path, seed: int, lines: int) -> list[str]:
    """Start a server on `root` and kill it once it has said about so many lines; returns them."""
    command = [sys.executable, "-m", "tests.humfs.load", str(root), str(seed)]
    said: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPO) as server:
        assert server.stdout is not None
        for line in server.stdout:
            said.append(line)
            if len(said) >= lines:
                break
        server.send_signal(signal.SIGKILL)
        said += server.stdout.readlines()
    assert server.returncode == -signal.SIGKILL
    return [line for line in said if line.endswith("\n")]


def promised(lines: list[str]) -> dict[str, list[str]]:
    """What was synced and not touched since, by path."""
    kept: dict[str, list[str]] = {}
    for line in lines:
        word, path, *rest = line.split()
        if word == "synced":
            kept[path] = rest
        else:
            kept.pop(path, None)
    return kept


async def verify(filesystem: HumFilesystem, kept: dict[str, list[str]]) -> None:
    subject = Subject(filesystem)
    for path, (mode, uid, gid, digest, mark) in kept.items():
        ino = ROOT
        for part in path.strip("/").split("/"):
            ino = (await subject.lookup(ino, part.encode())).ino
        attr = await subject.attr(ino)
        assert (stat.S_IMODE(attr.mode), attr.uid, attr.gid) == (int(mode), int(uid), int(gid)), path
        assert hashlib.sha256(await subject.read(ino, attr.size + 1)).hexdigest() == digest, path
        if mark != "-":
            assert await filesystem.getxattr(ino, XATTR) == mark.encode()
    subject.forget_all()


async def survive(root: Path, seed: int) -> None:
    rounds = random.Random(seed)
    kept = promised(kill_under_load(root, seed, rounds.randrange(1, 60)))
    if rounds.random() < 0.5:
        check(root, repair=True)
        assert check(root) == []
    filesystem = open_filesystem(root)
    await verify(filesystem, kept)
    assert filesystem.volume.used == filesystem.volume.count_used()
    await filesystem.close()
    assert check(root) == []


@pytest.mark.logs_warnings
@pytest.mark.parametrize("tree", range(TREES))
async def test_killed_under_load(tmp_path: Path, long: bool, tree: int) -> None:
    root = tmp_path / "fs"
    create(root, SIZE)
    for seed in range(tree, KILLS if long else KILLS_SHORT, TREES):
        await survive(root, seed)
