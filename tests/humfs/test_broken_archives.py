"""Archives that are not all there, and places where none can be written."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from humfs.archive import export_archive, import_archive
from tests import needs
from umlfs.errors import UmlError

HEADER = tarfile.BLOCKSIZE
MEMBER = HEADER + 1024
UML = [sys.executable, "-c", "from runtime.cli import main; main()"]


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """Three files of 1000 bytes: a header and two blocks each."""
    for name in ("one", "two", "three"):
        (tmp_path / name).write_bytes(os.urandom(1000))
    subprocess.run(["tar", "-cf", "in.tar", "one", "two", "three"], cwd=tmp_path, check=True)
    return tmp_path / "in.tar"


CUTS = [MEMBER + 200, MEMBER + HEADER, MEMBER + HEADER + 100]
"""Within the second member's header, before its contents, and within them."""


@pytest.mark.parametrize("size", CUTS)
@pytest.mark.parametrize("program", ["cat", "zstd"])
async def test_cut_off(root: Path, packed: Path, size: int, program: str) -> None:
    name = packed.with_name("cut")
    with open(name, "wb") as cut:
        subprocess.run([needs.program(program)], input=packed.read_bytes()[:size], stdout=cut, check=True)
    with pytest.raises(UmlError, match=r"cut: .*damaged"):
        await import_archive(root, str(name))
    assert (root / "data/one").stat().st_size == 1000


async def test_cut_off_between_members(root: Path, packed: Path) -> None:
    told: list[str] = []
    os.truncate(packed, 2 * MEMBER)
    assert await import_archive(root, str(packed), warn=told.append) == 2
    assert told == ["the archive has no end mark: it may have been cut off"]


async def test_a_header_damaged(root: Path, packed: Path) -> None:
    data = bytearray(packed.read_bytes())
    data[MEMBER + 1] ^= 1
    packed.write_bytes(data)
    with pytest.raises(UmlError, match=f"at byte {MEMBER}"):
        await import_archive(root, str(packed))


async def test_a_checksum_wrong(root: Path, packed: Path) -> None:
    """That of the whole compressed stream, which comes after the archive's end."""
    subprocess.run(["gzip", packed], check=True)
    name = packed.with_name("in.tar.gz")
    with open(name, "r+b") as file:
        file.seek(-8, os.SEEK_END)
        file.write(b"\1\2\3\4")
    with pytest.raises(UmlError, match="CRC"):
        await import_archive(root, str(name))


@pytest.mark.parametrize("program", ["cat", "gzip", "zstd"])
def test_interrupted_while_it_waits_for_a_pipe(root: Path, tmp_path: Path, program: str) -> None:
    (tmp_path / "file").write_bytes(os.urandom(3 << 20))
    done = subprocess.run(["tar", "-cC", tmp_path, "file"], stdout=subprocess.PIPE, check=True)
    data = subprocess.run([needs.program(program)], input=done.stdout, stdout=subprocess.PIPE, check=True).stdout
    with subprocess.Popen([*UML, "humfs", "import", root, "-"], stdin=subprocess.PIPE, stderr=subprocess.PIPE) as work:
        assert work.stdin is not None
        assert work.stderr is not None
        work.stdin.write(data[: len(data) * 3 // 4])
        work.stdin.flush()
        _wait_for_contents(root / "data/file")
        work.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            work.wait(20)
        work.send_signal(signal.SIGINT)  # unless it has ended: Python may miss one in the moment before it reads
        assert work.wait(60) == 130
        said = work.stderr.read()
        work.stdin.close()
    assert said == b"uml: broken off after 1 files, which stay; import again to go on\n"


def _wait_for_contents(path: Path) -> None:
    end = time.monotonic() + 60
    while not (path.exists() and path.stat().st_size):
        assert time.monotonic() < end, path
        time.sleep(0.01)


def test_exports_appear_complete_or_not_at_all(root: Path, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    with pytest.raises(UmlError, match="directory"):
        export_archive(root, str(place))
    with pytest.raises(UmlError, match=r"/dev/full: No space"):
        export_archive(root, "/dev/full")
    export_archive(root, "/dev/null")
    assert not place.is_file()
    assert Path("/dev/null").is_char_device()
    (place / "link").symlink_to("out.tar")
    export_archive(root, str(place / "link"))
    assert sorted(os.listdir(place)) == ["link", "out.tar"]
