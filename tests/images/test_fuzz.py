"""Real archives and container images with bytes changed: a clear error or a tree, and nothing left beside it."""

from __future__ import annotations

import gzip
import os
import subprocess
from pathlib import Path
from random import Random

import pytest

from humfs.check import check
from runtime.images import formats
from runtime.images.convert import Writing, convert
from tests import needs
from tests.images.making import make
from umlfs.errors import UmlError

SHORT, LONG = 20, 10_000
KINDS = ("gnu", "pax", "ustar", "v7", "gzip", "oci")


async def archives(path: Path) -> dict[str, bytes]:
    """One of each kind."""
    tree = path / "tree"
    (tree / "etc/deep").mkdir(parents=True)
    (tree / "etc/passwd").write_text("root:x:0:0\n")
    (tree / ("n" * 120)).write_text("long\n")
    (tree / "etc/deep/link").symlink_to("../passwd")
    os.link(tree / "etc/passwd", tree / "hard")
    os.setxattr(tree / "etc/passwd", "user.a", b"value")
    with open(tree / "holes", "wb") as file:
        file.seek(1 << 20)
        file.write(b"end")
    found = {}
    for kind in ("gnu", "pax", "ustar", "v7"):
        words: list[str | Path] = [
            needs.program("tar"),
            "--create",
            f"--format={kind}",
            "--directory",
            tree,
            "--sparse",
        ]
        if kind == "pax":
            words.append("--xattrs")
        elif kind != "gnu":
            words = [*words[:-1], f"--exclude={'n' * 120}"]
        subprocess.run([*words, "--file", path / f"{kind}.tar", "."], check=True)
        found[kind] = (path / f"{kind}.tar").read_bytes()
    found["gzip"] = gzip.compress(found["pax"])
    image = await make(path / "pax.tar", path / "image.oci")
    subprocess.run([needs.program("tar"), "-C", image, "-cf", path / "oci.tar", "."], check=True)
    found["oci"] = (path / "oci.tar").read_bytes()
    return found


def changed(data: bytes, random: Random) -> bytes:
    """With some bytes replaced, a range cut out or doubled, or the end cut off; headers more often than contents."""
    made = bytearray(data)
    for _ in range(random.randrange(1, 5)):
        block = random.randrange(len(made) // 512 or 1) * 512 if random.random() < 0.3 else random.randrange(8) * 512
        at = min(block + random.randrange(512), len(made) - 1)
        what = random.randrange(6)
        if what == 0:
            del made[at : at + random.choice((1, 512, 5000))]
        elif what == 1:
            made[at:at] = made[at : at + 512]
        elif what == 2:
            del made[max(at, 1) :]
        else:
            made[at] = random.choice((0, 0x30, 0x37, 0x80, 0xFF, random.randrange(256)))
        if len(made) < 2:
            break
    return bytes(made)


def with_sums(data: bytes, random: Random) -> bytes:
    """The same, with the checksums of headers made right again, so that what is in them is looked at."""
    made = bytearray(data)
    for at in range(0, len(made) - 511, 512):
        if made[at + 257 : at + 262] == b"ustar" and random.random() < 0.9:
            made[at + 148 : at + 156] = b" " * 8
            made[at + 148 : at + 156] = b"%06o\0 " % sum(made[at : at + 512])
    return bytes(made)


async def test_changed_archives_end_in_an_error_or_a_tree(tmp_path: Path, long: bool) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made/work").mkdir()
    originals = await archives(tmp_path / "made")
    good = bad = lines = 0
    for number in range(LONG if long else SHORT):
        random = Random(number)
        kind = KINDS[number % len(KINDS)]
        data = with_sums(changed(originals[kind], random), random)
        source, target = tmp_path / "made/work/x.tar", tmp_path / "made/work/x.humfs"
        source.write_bytes(data)
        try:
            await convert(formats.source(str(source)), formats.destination(str(target)), Writing(force=True))
        except UmlError as error:
            bad += 1
            lines += error.what.count("\n")
        except Exception as error:
            pytest.fail(f"{kind} with seed {number}: {error!r}")
        else:
            good += 1
            assert check(target) == []
        assert {each.name for each in (tmp_path / "made/work").iterdir()} <= {"x.tar", "x.humfs"}, number
    assert good
    assert bad
    assert not lines
