"""Real archives and images with bytes changed: a clear error or a tree, and nothing left beside it."""

from __future__ import annotations

import gzip
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest

from humfs.check import check
from runtime.images import formats
from runtime.images.convert import Writing, convert
from tests import needs
from tests.images.making import make
from umlfs.errors import UmlError

SHORT, LONG = 20, 6000
OTHERS_SHORT, OTHERS_LONG = 7, 2000
IMAGES_SHORT, IMAGES_LONG = 6, 2000
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


async def attempt(source: Path, target: Path, about: str) -> str | None:
    """Convert; what is said against it, on one line, None if it went well."""
    before = {each.name for each in source.parent.iterdir()}
    said = None
    try:
        await convert(formats.source(str(source)), formats.destination(str(target)), Writing(force=True))
    except UmlError as error:
        said = error.what
        assert "\n" not in said, about
        assert "Success" not in said, about
        assert not any(word in said for word in ("/proc/self", ".uml-")), f"{about}: {said}"
    except Exception as error:
        pytest.fail(f"{about}: {error!r}")
    assert {each.name for each in source.parent.iterdir()} <= before | {target.name}, about
    return said


async def test_changed_archives_end_in_an_error_or_a_tree(tmp_path: Path, long: bool) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made/work").mkdir()
    originals = await archives(tmp_path / "made")
    said = []
    for number in range(LONG if long else SHORT):
        random = Random(number)
        kind = KINDS[number % len(KINDS)]
        source, target = tmp_path / "made/work/x.tar", tmp_path / "made/work/x.humfs"
        source.write_bytes(with_sums(changed(originals[kind], random), random))
        said.append(await attempt(source, target, f"{kind} with seed {number}"))
        if said[-1] is None:
            assert check(target) == []
    assert None in said
    assert any(said)


# Of other kinds -------------------------------------------------------------------------------

Zones = Sequence[tuple[int, int]]
"""Where, and how far from there, bytes are changed."""


def hit(data: bytes, zones: Zones, random: Random) -> bytes:
    """With some bytes replaced, or the end cut off."""
    made = bytearray(data)
    for _ in range(random.randrange(1, 6)):
        start, length = random.choice(zones)
        at = min(start + random.randrange(length), len(made) - 1)
        what = random.randrange(8)
        if what == 0:
            del made[max(at, 1) :]
        elif what == 1:
            made[at : at + 8] = b"\xff" * 8
        elif what == 2:
            made[at : at + 4] = bytes(4)
        else:
            made[at] = random.choice((0, 1, 0x7F, 0x80, 0xFF, random.randrange(256)))
        if len(made) < 2:
            break
    return bytes(made)


def run(*words: str | Path) -> None:
    subprocess.run([needs.program(str(words[0])), *words[1:]], check=True, capture_output=True)


async def test_other_archives(tmp_path: Path, long: bool) -> None:
    """What libarchive reads, and what is compressed."""
    await archives(tmp_path)
    kinds = {"zip": "zip", "7z": "7zip", "newc": "newc", "odc": "cpio"}
    for suffix, kind in kinds.items():
        run("bsdtar", "--format", kind, "-cf", tmp_path / f"x.{suffix}", "-C", tmp_path / "tree", ".")
    for program, suffix in (("xz", "xz"), ("zstd", "zst"), ("bzip2", "bz2")):
        run(program, "-k", tmp_path / "pax.tar")
        (tmp_path / f"pax.tar.{suffix}").rename(tmp_path / f"x.tar.{suffix}")
    found = sorted(tmp_path.glob("x.*"))
    (tmp_path / "work").mkdir()
    for number in range(OTHERS_LONG if long else OTHERS_SHORT):
        original = found[number % len(found)]
        data = original.read_bytes()
        size = len(data)
        source = tmp_path / "work" / original.name
        source.write_bytes(
            hit(data, ((0, 64), (0, min(600, size)), (0, size), (max(0, size - 200), 200)), Random(number))
        )
        await attempt(source, tmp_path / "work/y.humfs", f"{original.name} with seed {number}")
        source.unlink()


@pytest.mark.guest
async def test_changed_images(tmp_path: Path, long: bool) -> None:
    """What the guest's kernel, or qemu, is to read."""
    await archives(tmp_path)
    tree = tmp_path / "tree"
    run("mke2fs", "-q", "-t", "ext4", "-d", tree, tmp_path / "x.ext4", "8M")
    run("mksquashfs", tree, tmp_path / "x.squashfs", "-quiet", "-no-progress")
    run("mkfs.erofs", "--quiet", tmp_path / "x.erofs", tree)
    run("genisoimage", "-quiet", "-R", "-o", tmp_path / "x.iso", tree)
    for kind in ("qcow2", "vmdk"):
        run("qemu-img", "convert", "-O", kind, tmp_path / "x.ext4", tmp_path / f"x.{kind}")
    zones: dict[str, Zones] = {
        "x.ext4": ((1024, 256), (4096, 512), (40 << 10, 160 << 10), (0, 1 << 20)),
        "x.squashfs": ((0, 96), (0, 96), (96, 4000)),
        "x.erofs": ((1024, 128), (0, 8192)),
        "x.iso": ((32 << 10, 4096), (32 << 10, 200 << 10)),
        "x.qcow2": ((0, 112), (64 << 10, 192 << 10)),
        "x.vmdk": ((0, 512), (512, 600), (0, 64 << 10)),
    }
    (tmp_path / "work").mkdir()
    for number in range(IMAGES_LONG if long else IMAGES_SHORT):
        name = sorted(zones)[number % len(zones)]
        source = tmp_path / "work" / name
        source.write_bytes(hit((tmp_path / name).read_bytes(), zones[name], Random(number)))
        await attempt(source, tmp_path / "work/y.tar", f"{name} with seed {number}")
        source.unlink()
    squashfs = tmp_path / "work/x.squashfs"
    squashfs.write_bytes((tmp_path / "x.squashfs").read_bytes()[:57])
    assert "the squashfs filesystem does not mount" in str(
        await attempt(squashfs, tmp_path / "work/y.tar", "cut short")
    )
