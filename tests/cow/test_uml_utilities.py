"""Files between us and the real uml_mkcow and uml_moo."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests import needs
from tests.cow.files import BROKEN, as_version, change, contents, pair
from umlfs.cow.file import header_at
from umlfs.cow.merge import merge, merge_in_place
from umlfs.cow.open import open_cow

pytestmark = pytest.mark.interop

SIZES = (0, 512, 4096, 82020, 1 << 20, (4 << 20) + 512)


def run(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [debian(name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def debian(name: str) -> str:
    """Debian's program, not ours of the same name."""
    return str(needs.path(f"/usr/bin/{name}"))


@pytest.mark.parametrize("size", SIZES)
def test_made_alike(tmp_path: Path, size: int) -> None:
    cow, backing = pair(tmp_path, size)
    theirs = tmp_path / "theirs"
    assert run("uml_mkcow", theirs, backing).returncode == 0
    header = header_at(str(cow))
    used = 32 + len(header.backing) + 1  # behind the path they write what happens to be in memory
    assert theirs.read_bytes()[:used] == cow.read_bytes()[:used]
    assert theirs.read_bytes()[header.bitmap_offset :] == cow.read_bytes()[header.bitmap_offset :]
    assert theirs.stat().st_size == cow.stat().st_size or size == 0


@pytest.mark.parametrize("size", SIZES[1:])
async def test_made_there_changed_here_merged_by_both(tmp_path: Path, size: int) -> None:
    cow, backing = pair(tmp_path, size)
    cow.unlink()
    assert run("uml_mkcow", cow, backing).returncode == 0
    content = await change(cow, count=40)
    assert run("uml_moo", cow, tmp_path / "theirs").returncode == 0
    merge(str(cow), str(tmp_path / "ours"))
    assert (tmp_path / "ours").read_bytes() == content
    assert (tmp_path / "theirs").read_bytes() == content[: size // 512 * 512], "they drop a partial last sector"


@pytest.mark.parametrize("version", [1, 2, 3, BROKEN])
async def test_old_versions_merged_by_both(tmp_path: Path, version: int) -> None:
    cow, _ = pair(tmp_path, 1 << 20)
    as_version(cow, version, "<" if version == 1 else ">")  # V1 is in the machine's own order
    content = await change(cow)
    assert run("uml_moo", cow, tmp_path / "theirs").returncode == 0
    assert (tmp_path / "theirs").read_bytes() == content


async def test_merged_in_place_alike(tmp_path: Path) -> None:
    results = []
    for name in ("theirs", "ours"):
        folder = tmp_path / name
        folder.mkdir()
        cow, backing = pair(folder, 1 << 20)
        content = await change(cow)
        if name == "theirs":
            assert run("uml_moo", "-d", cow).returncode == 0
        else:
            merge_in_place(str(cow))
        results.append(backing.read_bytes())
    assert results == [content, content]


async def test_over_four_gigabytes(tmp_path: Path) -> None:
    backing, cow = tmp_path / "backing", tmp_path / "cow"
    backing.touch()
    os.truncate(backing, (4 << 30) + 8192)
    assert run("uml_mkcow", cow, backing).returncode == 0
    device = await open_cow(str(cow))
    await device.write_from((4 << 30) + 4096, [memoryview(b"far" * 1024 + bytes(1024))])
    await device.close()
    merge(str(cow), str(tmp_path / "ours"))
    with (tmp_path / "ours").open("rb") as file:
        file.seek((4 << 30) + 4096)
        assert file.read() == b"far" * 1024 + bytes(1024)
    assert header_at(str(cow)).size == (4 << 30) + 8192
    assert (tmp_path / "ours").stat().st_blocks < 64


async def test_left_by_their_force(tmp_path: Path) -> None:
    """Their -f keeps the old bitmap, and the old data but for the last byte; that is a valid file nevertheless."""
    cow, backing = pair(tmp_path, 1 << 20)
    content = await change(cow)
    assert run("uml_mkcow", "-f", cow, backing).returncode == 0
    assert (await contents(cow))[:-1] == content[:-1]
