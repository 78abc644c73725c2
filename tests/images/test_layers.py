"""`uml image map|diff|rebase`: chains of qcow2 and COW files."""

from __future__ import annotations

import json
import struct
import subprocess
import zlib
from pathlib import Path
from xml.etree import ElementTree

import pytest

from runtime.cli import invoke
from runtime.images import formats, layers, picture
from runtime.images.mapping import Map, map_of
from tests import needs
from umlfs.errors import UsageError

MIB = 1 << 20
KIB = 1 << 10


def qemu(program: str, *words: str | Path) -> None:
    subprocess.run([needs.program(program), *words], stdout=subprocess.DEVNULL, check=True)


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    """A directory with base.img, a.qcow2 over that, b.qcow2 over that, and c.cow over all."""
    with open(tmp_path / "base.img", "wb") as file:
        file.write(b"base" * (64 * KIB))
        file.truncate(8 * MIB)
    qemu("qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.img", "-F", "raw", tmp_path / "a.qcow2")
    qemu("qemu-img", "create", "-q", "-f", "qcow2", "-b", "a.qcow2", "-F", "qcow2", tmp_path / "b.qcow2")
    qemu("qemu-io", "-f", "qcow2", "-c", "write -P 1 2M 128k", tmp_path / "a.qcow2")
    qemu("qemu-io", "-f", "qcow2", "-c", "write -P 2 4M 128k", "-c", "write -z 64k 64k", tmp_path / "b.qcow2")
    assert invoke(["cow", "create", str(tmp_path / "c.cow"), str(tmp_path / "b.qcow2")]) == 0
    return tmp_path


def ranges(found: Map) -> list[tuple[int, int, str, str]]:
    """Offset and length in KiB, the kind, and the name of the file."""
    name = [Path(layer.path).name for layer in found.layers]
    return [(each.offset // KIB, each.length // KIB, each.kind.value, name[each.depth]) for each in found.ranges]


def test_a_map_of_a_chain(chain: Path) -> None:
    """Who holds what, through COW files and qcow2."""
    expected = [
        (0, 64, "data", "base.img"),
        (64, 64, "zero", "b.qcow2"),
        (128, 128, "data", "base.img"),
        (2048, 128, "data", "a.qcow2"),
        (4096, 128, "data", "b.qcow2"),
    ]
    for top in ("b.qcow2", "c.cow"):
        found = map_of(formats.source(str(chain / top)))
        assert found.size == 8 * MIB
        assert ranges(found) == expected
    assert ranges(map_of(formats.source(str(chain / "base.img")))) == [(0, 256, "data", "base.img")]
    with pytest.raises(UsageError, match="only of a whole disk there is a map"):
        map_of(formats.source(str(chain)))


async def test_a_chain_of_qcow2_as_a_cow_file_and_back(chain: Path) -> None:
    """What it holds is what differs from the base, and no more; the disk is the same."""
    base, top = formats.source(str(chain / "base.img")), str(chain / "b.qcow2")
    await layers.rebase(top, base, formats.layer(str(chain / "b.cow")))
    assert await layers.different(top, str(chain / "b.cow")) == []
    [own, *_] = [[each for each in ranges(map_of(formats.source(str(chain / "b.cow")))) if each[3] == "b.cow"]]
    assert [each[:2] for each in own] == [(64, 64), (2048, 128), (4096, 128)]
    await layers.rebase(str(chain / "b.cow"), base, formats.layer(str(chain / "back.qcow2")))
    qemu("qemu-img", "compare", chain / "back.qcow2", chain / "b.qcow2")
    assert await layers.different(top, str(chain / "a.qcow2")) == [(64 * KIB, 64 * KIB), (4 * MIB, 128 * KIB)]
    other = chain / "other.img"
    other.write_bytes(b"other" + base.path.read_bytes()[5:])
    layers.rebase_in_place(formats.source(top), formats.source(str(other)))
    qemu("qemu-img", "compare", chain / "back.qcow2", chain / "b.qcow2")
    before = set(chain.iterdir())
    with pytest.raises(UsageError, match=r"b\.cow: exists"):
        await layers.rebase(top, base, formats.layer(str(chain / "b.cow")))
    with pytest.raises(UsageError, match=r"b\.cow: a layer lies over a raw image or one of qemu's"):
        await layers.rebase(top, formats.source(str(chain / "b.cow")), formats.layer(str(chain / "x.cow")))
    other.write_bytes(bytes(MIB))
    with pytest.raises(UsageError, match="no layer changes the size"):
        await layers.rebase(top, formats.source(str(other)), formats.layer(str(chain / "x.cow")))
    with pytest.raises(UsageError, match="the name does not tell which kind of layer"):
        formats.layer("x.img")
    assert set(chain.iterdir()) == before


def test_what_cannot_be_mapped_is_no_empty_map(chain: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a COW file lies over is part of the disk: a map without it would say that nothing is there."""
    (chain / "b.qcow2").rename(chain / "moved.qcow2")
    for words in (["image", "map"], ["cow", "map", "--svg", str(chain / "x.svg")]):
        assert invoke([*words, str(chain / "c.cow")]) != 0
        said = capsys.readouterr()
        assert said.out == ""
        assert "b.qcow2: no such" in said.err.lower()
    assert not (chain / "x.svg").exists()
    assert invoke(["cow", "map", str(chain / "c.cow")]) == 0
    for words in (["image", "map"], ["cow", "map"]):
        assert invoke([*words, "--json", "--png", str(chain / "x.png"), str(chain / "base.img")]) == 2
    assert "--json and a picture at once" in capsys.readouterr().err


def test_pictures(chain: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both have each file's colour where it holds something; the PNG is a whole one."""
    for words in (["image", "map"], ["cow", "map"]):
        files = ["--png", str(chain / "x.png"), "--svg", str(chain / "x.svg")]
        assert invoke([*words, *files, str(chain / "c.cow")]) == 0
        data = (chain / "x.png").read_bytes()
        assert data[:8] == b"\x89PNG\r\n\x1a\n"
        chunks = dict(_chunks(data))
        width, height = struct.unpack(">II", chunks[b"IHDR"][:8])
        assert (width, height) == (picture.COLUMNS * picture.CELL, 16 * picture.CELL)
        assert len(zlib.decompress(chunks[b"IDAT"])) == height * (width + 1)
        assert len(chunks[b"PLTE"]) == 3 * 5, "nothing, three files, and zeroes of one of them"
        drawn = ElementTree.parse(chain / "x.svg").getroot()
        assert "b.qcow2, changed " in "".join(drawn.itertext())
    capsys.readouterr()
    assert invoke(["image", "map", "--json", str(chain / "b.qcow2")]) == 0
    assert [Path(each["path"]).name for each in json.loads(capsys.readouterr().out)["layers"]] == [
        "b.qcow2",
        "a.qcow2",
        "base.img",
    ]
    assert invoke(["image", "diff", str(chain / "b.qcow2"), str(chain / "c.cow")]) == 0
    assert invoke(["image", "diff", str(chain / "a.qcow2"), str(chain / "c.cow")]) == 1


def _chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """Kind and contents of each chunk of a PNG, its sum compared."""
    found, at = [], 8
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        kind, contents = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        assert struct.unpack_from(">I", data, at + 8 + length)[0] == zlib.crc32(kind + contents)
        found.append((kind, contents))
        at += length + 12
    return found
