"""tar and images in, tar out; GNU tar is the judge."""

from __future__ import annotations

import contextlib
import errno
import filecmp
import gzip
import hashlib
import io
import json
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from humfs.archive import export_archive, fill_new, import_archive
from humfs.check import check
from humfs.filesystem import open_filesystem
from humfs.findings import Kind
from humfs.losses import Losses
from humfs.tarpax import nanoseconds
from humfs.volume import create
from tests import needs
from tests.contract.filesystem import Subject
from tests.humfs import trees
from umlfs.errors import UmlError
from umlfs.filesystem import ROOT, SetAttr


def pack(tree: Path, archive: Path, *options: str) -> None:
    names = sorted(os.listdir(tree)) if options == ("names",) else ["."]
    options = () if options == ("names",) else options
    subprocess.run(["tar", "--xattrs", "--format=pax", *options, "-cf", archive, "-C", tree, *names], check=True)


def unpack(archive: Path, tree: Path) -> None:
    tree.mkdir()
    subprocess.run(["tar", "--xattrs", "--xattrs-include=*", "-xpf", archive, "-C", tree], check=True)


async def exported(root: Path, tmp_path: Path) -> dict[str, trees.Fact]:
    export_archive(root, str(tmp_path / "out.tar"))
    unpack(tmp_path / "out.tar", tmp_path / "out")
    return trees.facts(tmp_path / "out")


@pytest.mark.real_root
async def test_in_and_out_again_is_the_same_tree(root: Path, tmp_path: Path) -> None:
    trees.make(tmp_path / "tree")
    pack(tmp_path / "tree", tmp_path / "in.tar")
    count = await import_archive(root, str(tmp_path / "in.tar"))
    assert count == len(trees.facts(tmp_path / "tree"))
    assert await exported(root, tmp_path) == trees.facts(tmp_path / "tree")
    assert check(root) == []
    modes = {stat.S_IMODE(path.lstat().st_mode) for path in (root / "data").rglob("*") if not path.is_symlink()}
    assert modes == {0o600, 0o700}


@contextlib.contextmanager
def _piped(archive: Path, program: str) -> Iterator[io.TextIOWrapper]:
    """What standard input is when `program` compresses the archive into it."""
    with subprocess.Popen([program, "-c", archive], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        pipe = io.TextIOWrapper(process.stdout)
        yield pipe
        pipe.read()


@pytest.mark.parametrize("program", ["gzip", "bzip2", "xz", "zstd"])
async def test_compressed_on_standard_input(
    root: Path, tmp_path: Path, program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs.program(program)
    (tmp_path / "tree").mkdir()
    for number in range(50):
        (tmp_path / f"tree/{number}").write_bytes(os.urandom(5000))
    pack(tmp_path / "tree", tmp_path / "in.tar")
    with _piped(tmp_path / "in.tar", program) as pipe:
        monkeypatch.setattr(sys, "stdin", pipe)
        assert await import_archive(root, "-") == 51
    for number in range(50):
        assert (root / f"data/{number}").read_bytes() == (tmp_path / f"tree/{number}").read_bytes()


def make_sparse(path: Path) -> None:
    with open(path, "wb") as file:
        file.seek(50 << 20)
        file.write(b"middle")
        file.truncate(100 << 20)


def same(one: Path, other: Path) -> bool:
    return filecmp.cmp(one, other, shallow=False)


async def test_sparse_files_stay_sparse(root: Path, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    make_sparse(tmp_path / "tree/sparse")
    pack(tmp_path / "tree", tmp_path / "in.tar", "-S")
    await import_archive(root, str(tmp_path / "in.tar"))
    assert (root / "data/sparse").stat().st_blocks < 1000
    export_archive(root, str(tmp_path / "out.tar"))
    assert (tmp_path / "out.tar").stat().st_size < 1 << 20
    unpack(tmp_path / "out.tar", tmp_path / "out")
    found = tmp_path / "out/sparse"
    assert found.stat().st_size == 100 << 20
    assert found.stat().st_blocks < 1000
    assert same(found, tmp_path / "tree/sparse")
    create(tmp_path / "again", 1 << 30)
    await import_archive(tmp_path / "again", str(tmp_path / "out.tar"))
    assert same(tmp_path / "again/data/sparse", found)


def archive(path: Path, *infos: tuple[tarfile.TarInfo, bytes]) -> str:
    with tarfile.open(path, "w") as tar:
        for info, data in infos:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return str(path)


def info(name: str, kind: bytes = tarfile.REGTYPE, **fields: object) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type = kind
    made.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    for field, value in fields.items():
        setattr(made, field, value)
    return made


@pytest.mark.logs_warnings
async def test_members_never_leave_the_tree(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    name = archive(
        tmp_path / "in.tar",
        (info("../../../up"), b"1"),
        (info(f"{outside}/absolute"), b"2"),
        (info("link", tarfile.SYMTYPE, linkname=str(outside)), b""),
        (info("link/through"), b"3"),
        (info("loop", tarfile.SYMTYPE, linkname="loop"), b""),
    )
    await import_archive(root, name)
    assert list(outside.iterdir()) == []
    assert (root / "data/up").read_bytes() == b"1"
    assert (root / f"data/{outside}/absolute").read_bytes() == b"2"
    assert (root / f"data/{outside}/through").read_bytes() == b"3"
    with pytest.raises(UmlError, match="symbolic links"):
        await import_archive(root, archive(tmp_path / "loop.tar", (info("loop/x"), b"")))
    wrong = info("hard", tarfile.LNKTYPE, linkname="../../etc/passwd")
    with pytest.raises(UmlError, match=r"a hard link to .*, which there is not"):
        await import_archive(root, archive(tmp_path / "hard.tar", (wrong, b"")))


@pytest.mark.real_root
async def test_a_new_filesystem_is_as_one_that_was_added_to(root: Path, tmp_path: Path) -> None:
    trees.make(tmp_path / "tree")
    pack(tmp_path / "tree", tmp_path / "in.tar")
    members = (
        *((info(name, tarfile.DIRTYPE), b"") for name in (".", "usr", "usr/lib")),
        (info("lib", tarfile.SYMTYPE, linkname="usr/lib"), b""),
        (info("lib/a"), b"1"),
        (info("lib/a"), b"22"),
        (info("lib", tarfile.DIRTYPE), b""),
        (info("lib/b"), b"3"),
        (info("lib/c", tarfile.LNKTYPE, linkname="usr/lib/a"), b""),
    )
    for number, name in enumerate((str(tmp_path / "in.tar"), archive(tmp_path / "twice.tar", *members))):
        old, new = tmp_path / f"old{number}", tmp_path / f"new{number}"
        create(old, 1 << 30)
        await import_archive(old, name)
        with open(name, "rb") as stream:
            await fill_new(new, stream, Losses())
        assert check(new) == []
        (tmp_path / f"o{number}").mkdir()
        (tmp_path / f"n{number}").mkdir()
        assert await exported(new, tmp_path / f"n{number}") == await exported(old, tmp_path / f"o{number}")
    assert (new / "data/usr/lib/a").read_bytes() == b"22"
    assert (new / "data/lib/b").read_bytes() == b"3"
    assert not (new / "data/usr/lib/b").exists()


async def test_what_is_there_is_replaced(root: Path, tmp_path: Path) -> None:
    await import_archive(
        root, archive(tmp_path / "a.tar", (info("a/b/c"), b"1"), (info("x"), b"2"), (info("d/y"), b""))
    )
    members = (
        (info("a/b", tarfile.DIRTYPE, mode=0o700, uid=5, mtime=77), b""),
        (info("x", tarfile.DIRTYPE), b""),
        (info("d", tarfile.SYMTYPE, linkname="a"), b""),
        (info("d/new", uid=9), b"3"),
    )
    await import_archive(root, archive(tmp_path / "b.tar", *members))
    fs = open_filesystem(root)
    s = Subject(fs)
    a = (await s.lookup(ROOT, b"a")).ino
    b = (await s.lookup(a, b"b")).attr
    assert (stat.S_IMODE(b.mode), b.uid, b.mtime_ns) == (0o700, 5, 77 * 10**9)
    assert await s.names(b.ino) == [b"c"]
    assert stat.S_ISDIR((await s.lookup(ROOT, b"x")).attr.mode)
    assert stat.S_ISLNK((await s.lookup(ROOT, b"d")).attr.mode)
    assert (await s.lookup(a, b"new")).attr.uid == 9
    await fs.close()
    assert check(root) == []


async def test_an_archive_that_does_not_fit(tmp_path: Path) -> None:
    create(tmp_path / "fs", 1 << 20)
    with pytest.raises(UmlError, match="no room"):
        await import_archive(tmp_path / "fs", archive(tmp_path / "in.tar", (info("big"), bytes(2 << 20))))


@pytest.mark.parametrize(
    "data", [b"", b"no archive" * 100, gzip.compress(b"no archive" * 100)[:-4]], ids=["empty", "text", "cut"]
)
@pytest.mark.logs_warnings
async def test_rubbish(root: Path, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "in.tar").write_bytes(data)
    with pytest.raises(UmlError, match=r"no tar archive|damaged"):
        await import_archive(root, str(tmp_path / "in.tar"))
    fs = open_filesystem(root)
    assert fs.store.meta["importing"] == 0  # nothing came of it
    await fs.close()


@pytest.mark.logs_warnings
async def test_an_archive_cut_short_keeps_what_came_and_says_so(root: Path, tmp_path: Path) -> None:
    name = archive(tmp_path / "in.tar", (info("a", uid=7), b"1"), (info("b"), bytes(100_000)))
    os.truncate(name, 50_000)
    with pytest.raises(UmlError, match=r"."):
        await import_archive(root, name)
    fs = open_filesystem(root)
    assert (await Subject(fs).lookup(ROOT, b"a")).attr.uid == 7
    assert fs.store.meta["importing"] == 1
    await fs.close()


INTERRUPTED = """
import signal, sys, tarfile
import trio
from pathlib import Path
from humfs import archive, names

made = 0
make = names.add_inode

def born(*arguments):
    global made
    made += 1
    if made == int(sys.argv[3]):
        signal.raise_signal(signal.SIGINT)  # the host's file is there, its row not yet
    return make(*arguments)

names.add_inode = born
signal.signal(signal.SIGINT, signal.default_int_handler)
trio.run(lambda: archive.import_archive(Path(sys.argv[1]), sys.argv[2], warn=print))
"""


@pytest.mark.parametrize("at", [1, 3, 4])
def test_an_interrupted_import_leaves_no_file_without_its_owner(root: Path, tmp_path: Path, at: int) -> None:
    members = [(info(f"{number}", uid=7), b"1") for number in range(5)]
    name = archive(tmp_path / "in.tar", *members)
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, root, name, str(at)], capture_output=True, text=True, check=False
    )
    assert done.stderr.endswith("KeyboardInterrupt\n")
    assert done.stdout == f"broken off after {at} files, which stay; import again to go on\n"
    assert [finding.kind for finding in check(root)] == [Kind.IMPORT]
    with contextlib.closing(sqlite3.connect(root / "metadata.sqlite")) as rows:
        assert rows.execute("SELECT uid FROM inode WHERE ino > 1").fetchall() == [(7,)] * at
    check(root, repair=True)
    assert check(root) == []


async def test_a_file_with_too_many_names_is_there_twice(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on ext4 beyond 65,000: each has the same contents and metadata, and that there are two is said."""
    archive = tmp_path / "x.tar"
    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as made:
        info = tarfile.TarInfo("first")
        info.uid, info.mode, info.size, info.mtime = 7, 0o640, 5, 1000
        info.pax_headers = {"SCHILY.xattr.user.a": "value"}
        made.addfile(info, io.BytesIO(b"hello"))
        for number in range(7):
            name = tarfile.TarInfo(f"name{number}")
            name.type, name.linkname = tarfile.LNKTYPE, "first"
            made.addfile(name)
    link = os.link

    def limited(source: bytes, target: bytes, *, src_dir_fd: int, dst_dir_fd: int, follow_symlinks: bool) -> None:
        if os.stat(source, dir_fd=src_dir_fd).st_nlink >= 3:
            raise OSError(errno.EMLINK, os.strerror(errno.EMLINK))
        link(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd, follow_symlinks=follow_symlinks)

    monkeypatch.setattr(os, "link", limited)
    said: list[str] = []
    await import_archive(root, str(archive), warn=said.append)
    monkeypatch.undo()
    assert said == ["files with more names than the host's filesystem allows are there more than once: /name2, /name5"]
    assert check(root) == []
    export_archive(root, str(tmp_path / "out.tar"))
    with tarfile.open(tmp_path / "out.tar") as read:
        members = [each for each in read if each.isreg()]
        assert [(each.uid, each.mode, each.mtime, each.size) for each in members] == [(7, 0o640, 1000, 5)] * 3
        assert all(each.pax_headers["SCHILY.xattr.user.a"] == "value" for each in members)
        assert len(read.getmembers()) == 9


async def test_sockets_are_told_of(root: Path, tmp_path: Path) -> None:
    fs = open_filesystem(root)
    await Subject(fs).mknod(ROOT, b"sock", stat.S_IFSOCK | 0o644)
    await fs.close()
    told: list[str] = []
    export_archive(root, str(tmp_path / "out.tar"), warn=told.append)
    assert told == ["sockets, of which tar has none, are left out: /sock"]


async def test_odd_attribute_names_and_large_numbers(root: Path, tmp_path: Path) -> None:
    fs = open_filesystem(root)
    s = Subject(fs)
    ino = await s.file(ROOT, b"file")
    names = {b"user.\xff=": b"\x00\n", b"user.a=b": b"c", b"security.capability": b"\x01\x00\x00\x02" + bytes(16)}
    await s.set(ino, SetAttr(uid=4_000_000_000, gid=3_000_000_000, mtime_ns=-1_500_000_001))
    for name, value in names.items():
        await fs.setxattr(ino, name, value)
    await fs.close()
    export_archive(root, str(tmp_path / "out.tar"))
    create(tmp_path / "again", 1 << 30)
    await import_archive(tmp_path / "again", str(tmp_path / "out.tar"))
    fs = open_filesystem(tmp_path / "again")
    s = Subject(fs)
    attr = (await s.lookup(ROOT, b"file")).attr
    assert (attr.uid, attr.gid, attr.mtime_ns) == (4_000_000_000, 3_000_000_000, -1_500_000_001)
    assert {name: await fs.getxattr(attr.ino, name) for name in await fs.listxattr(attr.ino)} == names
    await fs.close()


@pytest.mark.parametrize(
    ("text", "value"),
    [("5", 5 * 10**9), ("1.5", 1_500_000_000), ("-1.000000001", -1_000_000_001), ("0.1234567891", 123456789)],
)
def test_pax_times(text: str, value: int) -> None:
    assert nanoseconds(text.encode()) == value


# Images ---------------------------------------------------------------------------------------

LAYERS = [
    [("keep", b"1"), ("gone", b"2"), ("dir/old", b"3"), ("dir/sub/old", b"4"), ("other/x", b"5")],
    [(".wh.gone", b""), ("dir/new", b"6"), ("dir/.wh..wh..opq", b""), ("other/.wh.x", b"")],
    [("gone", b"7"), ("other", b"8")],
]
FLAT = {"keep": b"1", "dir/new": b"6", "gone": b"7", "other": b"8"}


def layer(members: list[tuple[str, bytes]]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, data in members:
            made = info(name, uid=42)
            made.size = len(data)
            tar.addfile(made, io.BytesIO(data))
    return packed.getvalue()


def put(layout: Path, data: bytes) -> dict[str, object]:
    digest = hashlib.sha256(data).hexdigest()
    (layout / "blobs/sha256").mkdir(parents=True, exist_ok=True)
    (layout / "blobs/sha256" / digest).write_bytes(data)
    return {"digest": f"sha256:{digest}", "size": len(data)}


def oci(layout: Path) -> None:
    """An OCI layout with an index for two architectures and one of the layers compressed."""
    blobs = [put(layout, gzip.compress(layer(one)) if number == 1 else layer(one)) for number, one in enumerate(LAYERS)]
    here = put(layout, json.dumps({"schemaVersion": 2, "layers": blobs}).encode())
    there = put(layout, json.dumps({"schemaVersion": 2, "layers": []}).encode())
    manifests = [
        {**there, "platform": {"architecture": "s390x"}},
        *({**here, "platform": {"architecture": name}} for name in ("amd64", "arm64")),
    ]
    nested = put(layout, json.dumps({"manifests": manifests}).encode())
    (layout / "index.json").write_text(json.dumps({"manifests": [nested]}))
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


def docker(directory: Path) -> None:
    """What `docker save` writes, the older way."""
    names = []
    for number, one in enumerate(LAYERS):
        name = hashlib.sha256(bytes([number])).hexdigest()
        (directory / name).mkdir(parents=True)
        (directory / name / "layer.tar").write_bytes(layer(one))
        names.append(f"{name}/layer.tar")
    (directory / "manifest.json").write_text(json.dumps([{"Config": "x.json", "Layers": names}]))


def flat(root: Path) -> dict[str, bytes]:
    data = root / "data"
    return {str(path.relative_to(data)): path.read_bytes() for path in data.rglob("*") if path.is_file()}


@pytest.mark.parametrize("build", [oci, docker])
@pytest.mark.parametrize("packed", [False, True])
async def test_layers_are_put_on_each_other(root: Path, tmp_path: Path, build: object, packed: bool) -> None:
    assert callable(build)
    image = tmp_path / "image"
    build(image)
    if packed:
        pack(image, tmp_path / "image.tar", "names")
        shutil.rmtree(image)
        image = tmp_path / "image.tar"
    await import_archive(root, str(image))
    assert flat(root) == FLAT
    fs = open_filesystem(root)
    assert (await Subject(fs).lookup(ROOT, b"keep")).attr.uid == 42
    await fs.close()
    assert check(root) == []


@pytest.mark.logs_warnings
async def test_a_damaged_blob_is_refused(root: Path, tmp_path: Path) -> None:
    oci(tmp_path / "image")
    largest = max((tmp_path / "image/blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[-1] ^= 1
    largest.write_bytes(data)
    with pytest.raises(UmlError, match="digest"):
        await import_archive(root, str(tmp_path / "image"))


@pytest.mark.logs_warnings
async def test_an_image_names_no_file_of_the_host(root: Path, tmp_path: Path) -> None:
    (tmp_path / "layer.tar").write_bytes(layer([("a", b"secret")]))
    image = tmp_path / "image"
    image.mkdir()
    (image / "manifest.json").write_text(json.dumps([{"Layers": ["../layer.tar"]}]))
    with pytest.raises(UmlError, match="no OCI image layout"):
        await import_archive(root, str(image))
    (image / "manifest.json").write_text(json.dumps([{"Layers": ["link"]}]))
    (image / "link").symlink_to(tmp_path / "layer.tar")
    with pytest.raises(UmlError, match="no OCI image layout"):
        await import_archive(root, str(image))
    assert flat(root) == {}
