"""Archives as filesystems: what is in them is read as it was packed, and the second look reads no archive."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from runtime.archives.filesystem import open_archive
from runtime.inspect import location
from runtime.inspect.comparing import compare
from runtime.inspect.diff import Difference
from tests import needs
from tests.images import entries
from tests.images.making import make
from umlfs.errors import UmlError
from umlfs.sources import parse


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "cache").mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/umlfs"


def pack(tree: Path, archive: Path, *options: str) -> Path:
    words: list[str | Path] = ["tar", "--xattrs", "--xattrs-include=*", "--format=pax", "--sparse", *options]
    words += ["-cf", archive, "-C", tree]
    subprocess.run([*words, "."], check=True)
    return archive


async def changes(one: object, other: object) -> list[str]:
    found: list[Difference] = []
    await compare(location.parse(str(one)), location.parse(str(other)), found.append)
    return [change.line() for change in found]


@pytest.mark.real_root
async def test_what_is_in_it_is_as_it_was_packed(tmp_path: Path) -> None:
    """Compared with a humfs made of it; also compressed, where contents are put down first."""
    tree = tmp_path / "tree"
    entries.make_tree(tree)
    os.link(tree / "file", tree / "other name")
    plain = pack(tree, tmp_path / "x.tar")
    assert await changes(plain, await make(plain, tmp_path / "x.humfs")) == []
    assert await changes(pack(tree, tmp_path / "x.tar.xz", "-J"), plain) == []
    filesystem = await open_archive(plain)
    found = {name: (await filesystem.lookup(1, name)).attr for name in (b"file", b"other name", b"holes")}
    await filesystem.close()
    assert found[b"file"].ino == found[b"other name"].ino
    assert found[b"file"].nlink == (tree / "file").stat().st_nlink
    assert found[b"holes"].blocks < 1000


@pytest.mark.parametrize("kind", ["zip", "newc", "7zip"])
async def test_what_libarchive_reads(tmp_path: Path, kind: str) -> None:
    (tmp_path / "tree/sub").mkdir(parents=True)
    (tmp_path / "tree/sub/file").write_text("here\n")
    program = needs.program("bsdtar")
    subprocess.run([program, f"--format={kind}", "-cf", "x.any", "-C", "tree", "."], cwd=tmp_path, check=True)
    source = parse(str(tmp_path / "x.any"))
    assert source.scheme == "archive"
    filesystem = await source.filesystem()
    directory = await filesystem.lookup(1, b"sub")
    file = await filesystem.lookup(directory.ino, b"file")
    content = bytearray(5)
    opened = await filesystem.open(file.ino, os.O_RDONLY)
    assert await filesystem.read_into(file.ino, opened.handle, 0, [memoryview(content)]) == 5
    await filesystem.release(file.ino, opened.handle)
    assert content == b"here\n"
    await filesystem.close()


async def test_the_index_is_kept_for_as_long_as_it_is_right(tmp_path: Path, cache: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "one").touch()
    archive = pack(tree, tmp_path / "x.tar")

    async def names() -> list[bytes]:
        filesystem = await open_archive(archive)
        found = [name for name in (b"one", b"two") if await _has(filesystem, name)]
        await filesystem.close()
        return found

    assert await names() == [b"one"]
    (index,) = cache.glob("archive-*.sqlite")
    before = index.read_bytes()
    assert await names() == [b"one"]
    assert index.read_bytes() == before
    index.write_bytes(before[:3000])
    assert await names() == [b"one"], "a damaged index is made anew"
    (tree / "two").touch()
    pack(tree, archive)
    assert await names() == [b"one", b"two"]
    os.chmod(cache, 0o777)
    assert await names() == [b"one", b"two"], "a cache that others can write is not used"


async def _has(filesystem: object, name: bytes) -> bool:
    try:
        await filesystem.lookup(1, name)  # type: ignore[attr-defined]
    except FileNotFoundError:
        return False
    return True


async def test_one_that_is_cut_short_is_refused(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/file").write_bytes(os.urandom(100_000))
    archive = pack(tmp_path / "tree", tmp_path / "x.tar")
    os.truncate(archive, 50_000)
    with pytest.raises(UmlError, match="cut short"):
        await open_archive(archive)
    assert list(cache.glob("archive-*")) == []
