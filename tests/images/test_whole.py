"""What is converted is whole, or what could not be carried is said: images and archives of the real tools."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import stat
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from humfs.importer import Member
from humfs.tarball import opened
from runtime.inspect.info import image_info
from tests import needs
from tests.guest.disks import MIB, empty, make_filesystem
from tests.images import entries
from tests.images.making import make
from tests.ordinary import ROOT
from umlfs.errors import UmlError, UsageError
from umlfs.sources import parse

UML = [sys.executable, "-P", "-c", "from runtime.cli import main; main()"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def run(*words: object, cwd: Path | None = None) -> None:
    subprocess.run([needs.program(str(words[0])), *map(str, words[1:])], cwd=cwd, check=True, capture_output=True)


def names(path: Path) -> dict[str, Member]:
    with open(path, "rb") as stream, opened(stream) as archive:
        return {os.fsdecode(b"/".join(member.path)): member for member in archive}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A few files, one of them a program with capabilities."""
    made = tmp_path / "tree"
    (made / "sub").mkdir(parents=True)
    (made / "sub/file").write_text("here\n")
    (made / "small").write_bytes(b"")
    os.setxattr(made / "sub/file", "user.note", b"1")
    return made


# Compressed, packed, piped --------------------------------------------------------------------


@pytest.mark.parametrize(
    "program",
    [
        "gzip",
        "zstd --long=31",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("bzip2", "xz", "lz4", "lzop")),
    ],
)
async def test_a_compressed_disk(tmp_path: Path, program: str) -> None:
    disk = make_filesystem("ext4", tmp_path / "disk.img")
    name, *options = program.split()
    packed = tmp_path / "disk.packed"
    with packed.open("wb") as output, disk.open("rb") as contents:
        subprocess.run([needs.program(name), *options, "-c"], stdin=contents, stdout=output, check=True)
    made = await make(packed, tmp_path / "out.img")
    assert made.read_bytes() == disk.read_bytes()
    assert entries.allocated(made) < disk.stat().st_size // 2
    await make(packed, tmp_path / "out.qcow2")
    os.truncate(packed, packed.stat().st_size - 5)
    with pytest.raises(UmlError, match=r"disk\.packed: "):
        await make(packed, tmp_path / "cut.img")
    assert not (tmp_path / "cut.img").exists()


async def test_a_compressed_file_that_is_neither(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("some text\n" * 500)
    run("gzip", tmp_path / "notes")
    with pytest.raises(UsageError, match="compressed with gzip, and what is in it is no archive and no disk"):
        await make(tmp_path / "notes.gz", tmp_path / "x.img")


@pytest.mark.parametrize("kind", ["zip", "cpio", "newc", "7zip", "v7tar", "shar.lz4"])
async def test_other_archives(tmp_path: Path, tree: Path, kind: str) -> None:
    if kind == "shar.lz4":
        kind, options = "gnutar", ["--lz4"]
    else:
        options = []
    run("bsdtar", f"--format={kind}", *options, "-cf", "x.archive", "-C", tree, ".", cwd=tmp_path)
    found = names(await make(tmp_path / "x.archive", tmp_path / "x.tar"))
    assert {"sub", "sub/file", "small"} <= set(found)
    assert found["sub/file"].size == 5
    made = await make(tmp_path / "x.archive", f"dir:{tmp_path / 'out'}")
    assert (made / "sub/file").read_text() == "here\n"


@pytest.mark.parametrize(("head", "what"), [(b"\xeb\x52\x90NTFS    ", "NTFS"), (b"\xeb\x58\x90-FVE-FS-", "BitLocker")])
async def test_what_is_known_and_cannot_be_read(tmp_path: Path, head: bytes, what: str) -> None:
    (tmp_path / "x").write_bytes(head + bytes(4096))
    with pytest.raises(UsageError, match=what):
        await make(tmp_path / "x", tmp_path / "x.tar")
    await make(f"raw:{tmp_path / 'x'}", tmp_path / "x.img")


def test_pipes(tmp_path: Path, tree: Path) -> None:
    packing = subprocess.run([needs.program("tar"), "-czC", tree, "."], stdout=subprocess.PIPE, check=True)
    for target in ("root.img", "humfs:hum", "tar:-", "-"):
        done = subprocess.run(
            [*UML, "image", "convert", "-", target],
            input=packing.stdout,
            capture_output=True,
            cwd=tmp_path,
            env=ENVIRONMENT,
            check=True,
        )
    listed = subprocess.run([needs.program("tar"), "-t"], input=done.stdout, stdout=subprocess.PIPE, check=True).stdout
    assert sorted(listed.decode().split()) == ["./", "./small", "./sub/", "./sub/file"]
    done = subprocess.run(
        [*UML, "image", "convert", "-", "x.img"], input=b"no disk", capture_output=True, cwd=tmp_path, env=ENVIRONMENT
    )
    assert b"/proc/" not in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hum", "root.img", "tree", "x.img"]


# Container images -----------------------------------------------------------------------------

CONFIG = {
    "architecture": "amd64",
    "os": "linux",
    "config": {"Env": ["A=1"], "Cmd": ["/bin/sh"], "User": "7", "WorkingDir": "/srv", "Labels": {"l": "m"}},
    "history": [{"created_by": "first"}, {"created_by": "second"}],
}


def layer(*members: tuple[str, str]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, text in members:
            info = tarfile.TarInfo(name.rstrip("/"))
            info.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
    return packed.getvalue()


LAYERS = [
    layer(("a", "1"), ("d/", ""), ("d/below", "2"), ("d/deep/", ""), ("d/deep/below", "3"), ("w", "old"), ("gone", "")),
    # An opaque directory behind what is in it, and whiteouts behind the files that the same layer has.
    layer(
        *(("d/deep/", ""), ("d/deep/above", "4"), ("d/.wh..wh..opq", "")),
        *(("w", "new"), (".wh.w", ""), (".wh.gone", ""), (".wh..wh.plnk", "")),
    ),
]
FLAT = {"a": b"1", "d/deep/above": b"4", "w": b"new"}


def layout(path: Path, tags: Sequence[str] = ("first:1",), layers: Sequence[bytes] = LAYERS) -> Path:
    (path / "blobs/sha256").mkdir(parents=True)

    def put(data: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        (path / "blobs/sha256" / digest).write_bytes(data)
        return {"digest": f"sha256:{digest}", "size": len(data)}

    blobs = [{"mediaType": "application/vnd.oci.image.layer.v1.tar", **put(data)} for data in layers]
    config = CONFIG | {"rootfs": {"type": "layers", "diff_ids": [blob["digest"] for blob in blobs]}}
    about = {"mediaType": "application/vnd.oci.image.config.v1+json", **put(json.dumps(config).encode())}
    kind = "application/vnd.oci.image.manifest.v1+json"
    manifest = put(json.dumps({"schemaVersion": 2, "mediaType": kind, "config": about, "layers": blobs}).encode())
    entries_ = [
        {"mediaType": kind, **manifest, "annotations": {"org.opencontainers.image.ref.name": tag}} for tag in tags
    ]
    (path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": entries_}))
    (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return path


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", ["oci", "docker-archive", "oci-archive", "docker-archive.gz", "shuffled"])
async def test_images_as_skopeo_writes_them(tmp_path: Path, kind: str) -> None:
    image = layout(tmp_path / "image")
    if kind != "oci":
        packed, transport = tmp_path / "packed", "oci-archive" if kind == "oci-archive" else "docker-archive"
        run("skopeo", "--insecure-policy", "copy", "-q", f"oci:{image}:first:1", f"{transport}:{packed}:first:1")
        image = packed
    if kind == "docker-archive.gz":
        run("gzip", image)
        image = tmp_path / "packed.gz"
    if kind == "shuffled":
        run("tar", "-xf", image, "--one-top-level=loose", cwd=tmp_path)
        members = sorted(os.listdir(tmp_path / "loose"), reverse=True)
        run("tar", "-cf", image, "-C", "loose", *members, cwd=tmp_path)
    made = await make(image, tmp_path / "out.humfs")
    assert files(made / "data") == FLAT


async def test_an_image_keeps_what_it_says(tmp_path: Path) -> None:
    """From an OCI layout to another; the judge is skopeo."""
    image = layout(tmp_path / "image", ["first:1", "other"])
    with pytest.raises(UmlError, match="several images: first:1, other; name one"):
        await make(image, tmp_path / "out.oci")
    with pytest.raises(UmlError, match="no image third; there is first:1, other"):
        await make(f"oci:{image}:third", tmp_path / "out.oci")
    made = await make(f"oci:{image}:other", tmp_path / "out.oci")
    done = subprocess.run(
        [needs.program("skopeo"), "inspect", "--config", f"oci:{made}:other"], capture_output=True, check=True
    )
    found = json.loads(done.stdout)
    assert found["config"] == CONFIG["config"]
    assert [step["created_by"] for step in found["history"]] == ["first", "second", "uml image convert"]
    assert [step.get("empty_layer", False) for step in found["history"]] == [True, True, False]
    named = await make(f"oci:{image}:other", f"oci:{tmp_path / 'named'}:new")
    run("skopeo", "inspect", f"oci:{named}:new")


async def test_what_only_looks_like_an_image(tmp_path: Path, tree: Path) -> None:
    (tree / "manifest.json").write_text('{"name": "a web page"}')
    (tree / "index.json").write_text("{}")
    assert (await make(tree, f"dir:{tmp_path / 'copy'}") / "sub/file").exists()
    run("tar", "-cf", "x.tar", "-C", tree, "index.json", "manifest.json", "sub", cwd=tmp_path)
    assert "sub/file" in names(await make(tmp_path / "x.tar", tmp_path / "out.tar"))
    image = layout(tmp_path / "image")
    found = names(await make(f"dir:{image}", tmp_path / "as-it-is.tar"))
    assert "oci-layout" in found


# Disks ----------------------------------------------------------------------------------------


def qcow2(path: Path, *options: str, size: int = 16 * MIB) -> Path:
    run("qemu-img", "create", "-q", "-f", "qcow2", *options, path, size)
    return path


def facts(path: Path) -> dict[str, Any]:
    done = subprocess.run([needs.program("qemu-img"), "info", "--output=json", path], capture_output=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


async def test_compacting_keeps_what_a_qcow2_is(tmp_path: Path) -> None:
    from runtime.images.compact import compact
    from runtime.images.formats import source

    image = qcow2(tmp_path / "x.qcow2", "-o", "cluster_size=4096,compat=0.10")
    run("qemu-io", "-c", "write -P 7 0 4M", "-c", "write -P 0 0 3M", image)
    before = facts(image)
    freed = await compact(source(str(image)))
    assert freed > 2 * MIB
    after = facts(image)
    for key in ("cluster-size", "virtual-size"):
        assert after[key] == before[key]
    assert after["format-specific"]["data"]["compat"] == "0.10"
    run("qemu-io", "-r", "-c", "read -P 7 3M 1M", image)
    inode = image.stat().st_ino
    assert await compact(source(str(image))) == 0
    assert image.stat().st_ino == inode, "replaced by one that is no smaller"
    run("qemu-img", "snapshot", "-c", "one", image)
    with pytest.raises(UsageError, match="has 1 snapshots in it"):
        await compact(source(str(image)))
    assert [each["name"] for each in facts(image)["snapshots"]] == ["one"]


async def test_compacting_keeps_compressed_clusters(tmp_path: Path) -> None:
    from runtime.images.compact import compact
    from runtime.images.formats import source

    (tmp_path / "raw").write_bytes(b"text " * (2 * MIB))
    run("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", tmp_path / "raw", tmp_path / "x.qcow2")
    size = (tmp_path / "x.qcow2").stat().st_size
    assert await compact(source(str(tmp_path / "x.qcow2"))) == 0
    assert (tmp_path / "x.qcow2").stat().st_size == size


@pytest.mark.guest
@pytest.mark.real_root
async def test_subvolumes(tmp_path: Path) -> None:
    """All are in what is converted, and one of them can be named."""
    image = empty(tmp_path / "x.img", 128 * MIB)
    run("mkfs.btrfs", "-q", image)
    script = """
        mount /dev/ubda /mnt && cd /mnt && btrfs -q subvolume create @root && btrfs -q subvolume create @root/inner
        mkdir @root/etc && echo ID=test >@root/etc/os-release && echo 1 >@root/inner/f && echo 2 >@root/g
        ln @root/g @root/h && cp -p @root/g @root/inner/g && cd / && umount /mnt
    """.replace("btrfs -q", "btrfs")
    done = subprocess.run(
        [*UML, "run", "--ubd", f"ubd0={image}", "--", "sh", "-ec", script], capture_output=True, env=ENVIRONMENT
    )
    assert done.returncode == 0, done.stderr
    found = names(await make(image, tmp_path / "all.tar"))
    assert {"@root", "@root/etc/os-release", "@root/inner/f", "@root/inner/g", "@root/h"} <= set(found)
    assert found["@root/h"].link == (b"@root", b"g")
    assert found["@root/inner/g"].link is None
    found = names(await make(f"{image}:/@root", tmp_path / "one.tar"))
    assert {"etc/os-release", "inner/f", "g"} <= set(found)
    listed = subprocess.run(
        [*UML, "ls", "-di", f"{image}:/@root", f"{image}:/@root/inner"], capture_output=True, text=True, env=ENVIRONMENT
    )
    if listed.returncode == 0:
        assert len({line.split()[0] for line in listed.stdout.splitlines()}) == 2
    [part] = (await image_info(parse(str(image)))).parts
    assert part.system is not None
    assert (part.system.distribution, part.system.place) == ("test", "/@root")


@pytest.mark.guest
@pytest.mark.parametrize(
    "kind", ["squashfs", *(pytest.param(name, marks=pytest.mark.slow) for name in ("xfs", "btrfs", "erofs"))]
)
@pytest.mark.real_root
async def test_filesystems_that_are_made(tmp_path: Path, kind: str) -> None:
    entries.make_tree(tmp_path / "tree")
    wanted = entries.of_file(await make(tmp_path / "tree", tmp_path / "tree.tar"))
    if kind == "erofs":
        with pytest.raises(UmlError, match="may not take a name of 255 bytes"):
            await make(tmp_path / "tree.tar", tmp_path / "x.erofs")
        shutil.rmtree(next(each for each in (tmp_path / "tree").iterdir() if len(each.name) > 100))
        wanted = entries.of_file(await make(tmp_path / "tree", tmp_path / "tree.tar", force=True))
    lost: list[str] = []
    image = await make(tmp_path / "tree.tar", tmp_path / f"x.{kind}", warn=lost.append)
    found = entries.of_file(await make(image, tmp_path / "back.tar", warn=lost.append))
    if kind == "squashfs":
        kinds = {line.split(",")[0] for line in lost}
        assert kinds == {"access lists", "times lose their nanoseconds", "attributes and capabilities"}
        with pytest.raises(UmlError, match="not all can be carried: attributes"):
            await make(image, tmp_path / "strict.tar", strict=True)
        plain = {name: (*one[:4], *one[5:8]) for name, one in wanted[0].items()}
        assert {name: (*one[:4], *one[5:8]) for name, one in found[0].items()} == plain
        return
    assert lost == []
    assert found == wanted


@pytest.mark.slow
async def test_more_names_than_ext4_allows(tmp_path: Path) -> None:
    """A second copy is made, and said."""
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        first = tarfile.TarInfo("first")
        first.size, first.uid = 10_000, 7
        archive.addfile(first, io.BytesIO(b"x" * 10_000))
        for number in range(65_100):
            link = tarfile.TarInfo(f"{number}")
            link.type, link.linkname = tarfile.LNKTYPE, "first"
            archive.addfile(link)
    lost: list[str] = []
    image = await make(tmp_path / "x.tar", tmp_path / "x.img", warn=lost.append)
    assert lost == ["files with more names than ext4 allows are there more than once: /64999"]
    run("e2fsck", "-fn", image)
    for name, links in (("first", 65000), ("65099", 101)):
        done = subprocess.run([needs.program("debugfs"), "-R", f"stat {name}", image], capture_output=True, check=True)
        assert f"Links: {links}".encode() in done.stdout
        assert b"Size: 10000" in done.stdout
        assert b"User:     7" in done.stdout


async def test_no_file_is_root_s_by_a_number_out_of_range(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    run("tar", "--format=pax", "--pax-option=uid:=1099511627776", "-cf", "x.tar", "f", cwd=tmp_path)
    for target in ("x.img", "x.humfs", "out.tar", "dir:out"):
        scheme, colon, name = target.rpartition(":")
        with pytest.raises(UmlError, match="its owner 1099511627776 is beyond 4294967294"):
            await make(tmp_path / "x.tar", f"{scheme}{colon}{tmp_path / name}")


async def test_incremental_archives(tmp_path: Path, tree: Path) -> None:
    run("tar", "--format=gnu", "-g", "snapshot", "-cf", "x.tar", "tree", cwd=tmp_path)
    made = await make(tmp_path / "x.tar", tmp_path / "x.humfs")
    assert set(files(made / "data")) == {"tree/small", "tree/sub/file"}
    assert stat.S_ISDIR(names(await make(made, tmp_path / "y.tar"))["tree/sub"].mode)
