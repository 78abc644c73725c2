"""Images of every kind, through the appliance: what is read, what is written, and that what is read stays as it is."""

from __future__ import annotations

import contextlib
import hashlib
import lzma
import os
import re
import subprocess
from pathlib import Path

import pytest
import trio

from runtime.appliance.client import end_kept, keep, prolong
from runtime.inspect import location
from runtime.inspect.comparing import compare
from runtime.inspect.contents import read
from runtime.inspect.copying import copy
from runtime.inspect.diff import Difference
from runtime.inspect.info import image_info
from runtime.inspect.output import cat
from runtime.inspect.paths import resolve
from runtime.inspect.tree import open_tree
from runtime.inspect.walk import walk
from runtime.machine.machine import Machine, Options
from tests import needs
from tests.appliance.images import FSTAB, make, make_tree, partitioned, run
from tests.guest.disks import MIB, empty, shell, specs
from umlfs.blocks.raw import open_raw
from umlfs.cow.create import create
from umlfs.errors import UmlError
from umlfs.filesystem import Caller
from umlfs.sources import parse

pytestmark = pytest.mark.guest
OLD = Path(__file__).with_name("old")
"""Images in it are small because little is in them: see `make.sh` there."""


class _PowerCut(Exception):
    pass


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


async def changes(one: object, other: object) -> list[str]:
    found: list[Difference] = []
    await compare(location.parse(str(one)), location.parse(str(other)), found.append)
    return [change.line() for change in found]


async def test_a_disk_with_a_filesystem_of_each_kind(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree")
    kinds = {"ext4": tree, "xfs": None, "btrfs": tree, "vfat": None}
    parts = [make(kind, tmp_path / kind, each, f"my-{kind}") for kind, each in kinds.items()]
    disk = partitioned(tmp_path / "disk", parts)
    before = digest(disk)
    info = await image_info(parse(str(disk)))
    assert (info.format, info.table, info.size) == ("raw", True, disk.stat().st_size)
    assert [part.filesystem for part in info.parts] == list(kinds)
    assert [(part.label or "").lower() for part in info.parts] == [f"my-{kind}" for kind in kinds]
    assert [part.trouble for part in info.parts] == [None] * 4
    for part in info.parts:
        assert part.capacity is not None
        assert part.used is not None
        assert 0 <= part.used < part.capacity <= part.size
        assert part.uuid
    for number in (0, 2):
        system = info.parts[number].system
        assert system is not None
        assert (system.distribution, system.hostname) == ("Debian GNU/Linux 12 (bookworm)", "box")
        assert system.fstab == [["/dev/ubda", "/", "ext4", "defaults", "0", "1"]]
    assert digest(disk) == before
    with pytest.raises(UmlError, match=r"several filesystems, in partitions 1 \(ext4\), 2 \(xfs\)"):
        async with open_tree(location.parse(str(disk))):
            pass


async def test_files_go_in_and_out_unchanged(tmp_path: Path) -> None:
    """Owners, modes, times, links, holes, FIFOs; through an image that fsck likes afterwards."""
    tree = make_tree(tmp_path / "tree")
    image = make("ext4", tmp_path / "image")
    report = await copy([str(tree)], f"{image}:/copy", recursive=True)
    assert (report.skipped, report.owners_lost) == ([], 0)
    assert await changes(tree, f"{image}:/copy") == []
    run("e2fsck", "-fn", image)
    before = digest(image)
    report = await copy([f"{image}:/copy"], str(tmp_path / "back"), recursive=True)
    assert digest(image) == before
    assert (report.skipped, report.owners_lost) == ([], 0)
    assert await changes(tree, tmp_path / "back") == []
    assert (tmp_path / "back/home/me/sparse").stat().st_blocks * 512 < MIB
    assert (tmp_path / "back/etc/fstab").samefile(tmp_path / "back/etc/fstab.old")
    assert (tmp_path / "back/etc/shadow").stat().st_mtime_ns == (tree / "etc/shadow").stat().st_mtime_ns


@pytest.mark.parametrize("kind", ["jfs", "reiserfs"])
async def test_filesystems_that_few_make_any_more(kind: str, tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(lzma.decompress(OLD.joinpath(f"{kind}.img.xz").read_bytes()))
    before = digest(image)
    tree = make_tree(tmp_path / "tree")
    (part,) = (await image_info(parse(str(image)))).parts
    assert (part.filesystem, part.trouble) == (kind, None)
    # Made by somebody else, and at another time.
    assert [line for line in await changes(tree, image) if not re.search(r"\(owner|  \(mode", line)] == []
    assert digest(image) == before
    (tmp_path / "new").mkdir()
    (tmp_path / "new/file").write_bytes(os.urandom(3 * MIB))
    assert (await copy([str(tmp_path / "new")], f"{image}:/home", recursive=True)).skipped == []
    assert await changes(tmp_path / "new", f"{image}:/home/new") == []


async def test_what_does_not_fit_leaves_nothing_behind(tmp_path: Path) -> None:
    image = make("ext4", tmp_path / "image")
    large = tmp_path / "tree/large"
    large.parent.mkdir()
    large.write_bytes(os.urandom(40 * MIB))
    with pytest.raises(UmlError, match="No space left on device"):
        await copy([str(large.parent)], f"{image}:/", recursive=True)
    run("e2fsck", "-fn", image)
    async with open_tree(location.parse(str(image))) as opened:
        root = await resolve(opened.filesystem, b"/")
        names = [node.path async for each in walk(opened.filesystem, root) for node in each.children]
    assert names == [b"/lost+found"]


async def test_a_dirty_journal_is_replayed_in_memory_alone(tmp_path: Path) -> None:
    """What a guest wrote before it died is seen, and the image stays as it is."""
    image = make("ext4", tmp_path / "image")
    script = "mkdir /tmp/d && mount /dev/vda /tmp/d && echo late >/tmp/d/late && sync -f /tmp/d"
    with contextlib.suppress(_PowerCut):
        async with Machine(Options(ubds=specs(f"ubd0={image}"))) as machine:
            await shell(machine, script)
            raise _PowerCut
    before = digest(image)
    assert (
        b"needs_recovery"
        in subprocess.run([needs.program("dumpe2fs"), "-h", image], capture_output=True, check=True).stdout
    )
    read, write = os.pipe()
    async with open_tree(location.parse(str(image))) as opened:
        await cat(opened.filesystem, b"/late", write)
    os.close(write)
    with open(read, "rb") as output:
        assert output.read() == b"late\n"
    assert digest(image) == before


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("f2fs", ("mkfs.f2fs", "-q")),
        ("udf", ("mkudffs", "--new-file", "--media-type=hd")),
        ("minix", ("mkfs.minix", "-3")),
    ],
)
async def test_filesystems_that_few_know(kind: str, words: tuple[str, ...], tmp_path: Path) -> None:
    image = empty(tmp_path / "image", 128 * MIB)
    run(*words, image)
    (part,) = (await image_info(parse(str(image)))).parts
    assert (part.filesystem, part.trouble) == (kind, None)
    (tmp_path / "new/sub").mkdir(parents=True)
    (tmp_path / "new/sub/file").write_bytes(os.urandom(3 * MIB))
    assert (await copy([str(tmp_path / "new")], f"{image}:/", recursive=True)).skipped == []
    assert await changes(tmp_path / "new", f"{image}:/new") == []


async def test_access_lists_and_capabilities_go_along(tmp_path: Path) -> None:
    """From a directory of this host into an image and back; a filesystem that has none is told to lose them."""
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "ping").write_bytes(b"program")
    run("setcap", "cap_net_raw+ep", tree / "ping")
    os.setxattr(tree / "ping", "user.note", b"mine")
    run("setfacl", "-m", "u:77:r,g:78:rw", tree / "ping")
    run("setfacl", "-d", "-m", "u:77:rwx", tree / "sub")
    before = {name: attributes_of(tree / name) for name in ("ping", "sub")}
    assert len(before["ping"]) == 3
    image = make("ext4", tmp_path / "image")
    for source, target in ((str(tree), f"{image}:/tree"), (f"{image}:/tree", str(tmp_path / "back"))):
        report = await copy([source], target, recursive=True)
        assert (report.skipped, report.owners_lost, report.attributes_lost) == ([], 0, {})
    assert {name: attributes_of(tmp_path / "back" / name) for name in before} == before
    assert await changes(tree, f"{image}:/tree") == []
    report = await copy([str(tree)], f"{make('vfat', tmp_path / 'fat')}:/tree", recursive=True)
    assert report.attributes_lost.keys() >= {"security.capability", "user.note", "system.posix_acl_access"}


def attributes_of(path: Path) -> dict[str, bytes]:
    return {name: os.getxattr(path, name) for name in os.listxattr(path)}


async def test_names_that_the_target_has_not(tmp_path: Path) -> None:
    """They are left out and told; everything else is copied."""
    for name in ("good", "a:b", "dir?/inside", "sub/good", "sub/GOOD"):
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / name).write_bytes(b"contents")
    image = make("vfat", tmp_path / "image")
    report = await copy([str(tmp_path / "tree")], f"{image}:/tree", recursive=True)
    assert sorted(line.partition(": ")[0].lower() for line in report.skipped) == ["/a:b", "/dir?", "/sub/good"]
    left = await changes(tmp_path / "tree", f"{image}:/tree")
    assert not [line for line in left if line.endswith("/tree/good") or "added" in line], left
    (tmp_path / "tree/SUB").mkdir()
    (tmp_path / "tree/SUB/good").write_bytes(b"others")
    for _ in range(2):
        report = await copy([str(tmp_path / "tree")], f"{image}:/", recursive=True, replace=True)
        names = [line.partition(": ")[0] for line in report.skipped]
        kept, pair = ("sub", ["/sub/good"]) if "/SUB" in names else ("SUB", [])
        assert sorted(name.lower() for name in names) == ["/a:b", "/dir?", "/sub", *pair]
        async with open_tree(location.parse(f"{image}:/")) as found:
            node = await resolve(found.filesystem, f"/tree/{kept}/good".encode())
            assert await read(found.filesystem, node, 100) == (tmp_path / "tree" / kept / "good").read_bytes()


@pytest.mark.parametrize("kind", ["squashfs", "iso9660", "erofs"])
async def test_filesystems_that_are_only_read(kind: str, tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree")
    image = make(kind, tmp_path / "image", tree, "LABEL")
    found = await changes(f"{tree}:/home", f"{image}:/home")
    assert [line for line in found if "attributes" not in line and "owner" not in line and "mode" not in line] == []
    with pytest.raises(UmlError, match=f"the kernel only reads {kind}"):
        await copy([str(tree / "etc/fstab")], f"{image}:/")


async def test_a_qcow2_image_over_another(tmp_path: Path) -> None:
    base = make("ext4", tmp_path / "base", make_tree(tmp_path / "tree"))
    image = tmp_path / "image.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", base, image)
    info = await image_info(parse(str(image)))
    assert info.format == "qcow2"
    assert info.parts[0].system is not None
    before = base.read_bytes()
    (tmp_path / "new").write_text("new\n")
    await copy([str(tmp_path / "new")], f"{image}:/home")
    run("qemu-img", "check", "-q", image)
    run("qemu-img", "convert", "-O", "raw", image, tmp_path / "flat")
    assert await changes(base, tmp_path / "flat") == ["+ /home/new"]
    assert base.read_bytes() == before


async def test_what_a_guest_changed(tmp_path: Path) -> None:
    base = make("ext4", tmp_path / "base", make_tree(tmp_path / "tree"))
    cow = tmp_path / "guest.cow"
    create(str(cow), str(base))
    (tmp_path / "new").write_text("new\n")
    (tmp_path / "hostname").write_text("crate\n")
    await copy([str(tmp_path / "hostname")], f"{cow}:/etc/hostname", replace=True)
    await copy([str(tmp_path / "new")], f"{cow}:/home")
    found = await changes(base, cow)
    assert found[0].startswith("! /etc/hostname  (size 4 -> 6")
    assert found[1:] == ["+ /home/new"]
    info = await image_info(parse(str(cow)))
    assert (info.format, info.layers) == ("cow", [str(cow), str(base)])


async def test_images_that_are_no_good(tmp_path: Path) -> None:
    whole = make("ext4", tmp_path / "whole", make_tree(tmp_path / "tree"))
    broken = tmp_path / "broken"
    broken.write_bytes(whole.read_bytes()[: 4 * MIB])
    with pytest.raises(UmlError, match=r"the ext4 filesystem does not mount: .* \(EXT4-fs \(vda\): bad geometry"):
        async with open_tree(location.parse(str(broken))):
            pass
    lying = partitioned(tmp_path / "lying", [whole])
    os.truncate(lying, 8 * MIB)
    with pytest.raises(UmlError, match="it ends at byte"):
        async with open_tree(location.parse(str(lying))):
            pass
    with pytest.raises(UmlError, match="no filesystem to look into"):
        async with open_tree(location.parse(str(empty(tmp_path / "nothing", MIB)))):
            pass
    with pytest.raises(UmlError, match="no partition 2; there is none"):
        async with open_tree(location.parse(f"{whole}:2")):
            pass


async def test_an_image_in_use_is_left_alone(tmp_path: Path) -> None:
    image = make("ext4", tmp_path / "image", make_tree(tmp_path / "tree"))
    writer = open_raw(image)
    for target in (f"{image}:/x", str(tmp_path / "x")):
        source = str(tmp_path / "tree/etc/fstab") if target.startswith(str(image)) else f"{image}:/etc/fstab"
        with pytest.raises(UmlError, match=f"in use by this process \\(pid {os.getpid()}\\)"):
            await copy([source], target)
    await writer.close()
    reader = open_raw(image, read_only=True)
    await copy([f"{image}:/etc/fstab"], str(tmp_path / "fstab"))
    assert (tmp_path / "fstab").read_text() == FSTAB
    await reader.close()


def test_a_kept_appliance_answers_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    image = make("ext4", tmp_path / "image", make_tree(tmp_path / "tree"))
    keep(parse(str(image)), 60)
    try:
        assert prolong(parse(str(image)), 60)

        async def use() -> list[str]:
            async with open_tree(location.parse(str(image))) as opened:
                with pytest.raises(OSError, match="Read-only"):
                    await opened.filesystem.mkdir(1, b"x", 0o755, 0, Caller())
            return await changes(f"{image}:/home", tmp_path / "tree/home")

        for _ in range(3):
            assert trio.run(use) == []
        with pytest.raises(UmlError, match=r"in use by \S+ \(pid"):
            open_raw(image)
        # Whoever wants to write ends it first.
        trio.run(copy, [str(tmp_path / "tree/etc/fstab")], f"{image}:/new")
        assert not prolong(parse(str(image)), 1)
    finally:
        end_kept(parse(str(image)))
