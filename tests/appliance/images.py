"""Images with filesystems and partitions, made without root."""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests import needs
from tests.guest.disks import MIB, empty

SIZES = {"ext4": 32 * MIB, "xfs": 320 * MIB, "btrfs": 128 * MIB, "vfat": 34 * MIB}
SECTOR = 512
ALIGNMENT = MIB
OS_RELEASE = 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\n'
FSTAB = "# what is where\n/dev/ubda / ext4 defaults 0 1\n"


def run(*words: str | Path) -> None:
    subprocess.run([needs.program(str(words[0])), *map(str, words[1:])], check=True, capture_output=True)


def make_tree(top: Path) -> Path:
    """What a system has, in small: links, modes, holes, names of other scripts."""
    for name in ("etc", "home/me", "usr/lib"):
        (top / name).mkdir(parents=True)
    (top / "usr/lib/os-release").write_text(OS_RELEASE)
    (top / "etc/os-release").symlink_to("/usr/lib/os-release")
    (top / "etc/hostname").write_text("box\n")
    (top / "etc/fstab").write_text(FSTAB)
    os.link(top / "etc/fstab", top / "etc/fstab.old")
    (top / "etc/shadow").write_text("root:*:\n")
    (top / "etc/shadow").chmod(0o640)
    (top / "home/me/día ☂").write_text("rain\n")
    os.mkfifo(top / "home/me/fifo")
    with (top / "home/me/sparse").open("wb") as file:
        file.truncate(8 * MIB)
        file.seek(4 * MIB)
        file.write(b"middle")
    (top / "home/me/data").write_bytes(bytes(range(256)) * 8192)
    return top


def make(kind: str, path: Path, tree: Path | None = None, label: str = "") -> Path:
    """A new image with a filesystem, what is in `tree` in it where the kind's tool can do that."""
    if kind == "squashfs":
        assert tree is not None
        run("mksquashfs", tree, path, "-noappend", "-quiet", "-no-progress")
        return path
    if kind == "iso9660":
        assert tree is not None
        run("genisoimage", "-quiet", "-R", "-J", "-V", label, "-o", path, tree)
        return path
    if kind == "erofs":
        assert tree is not None
        run("mkfs.erofs", path, tree)
        return path
    empty(path, SIZES[kind])
    contents: Sequence[str | Path] = ()
    if tree is not None:
        contents = {"ext4": ("-d", tree), "btrfs": ("--rootdir", tree)}[kind]
    options = {
        "ext4": ("-qF", "-L", label),
        "xfs": ("-q", "-L", label),
        "btrfs": ("-q", "-L", label),
        "vfat": ("-n", label),
    }[kind]
    run(f"mkfs.{kind}", *options, *contents, path)
    return path


def partitioned(path: Path, parts: Sequence[Path]) -> Path:
    """A disk with an MBR whose primary partitions have the contents of `parts`."""
    offset = ALIGNMENT
    rows = b""
    empty(path, ALIGNMENT)
    for part in parts:
        size = part.stat().st_size
        rows += struct.pack("<B3sB3sII", 0, b"", 0x83, b"", offset // SECTOR, size // SECTOR)
        seek = f"seek={offset // ALIGNMENT}"
        run("dd", f"if={part}", f"of={path}", "bs=1M", seek, "conv=notrunc,sparse", "status=none")
        offset += -(-size // ALIGNMENT) * ALIGNMENT
        os.truncate(path, offset)
    with path.open("r+b") as file:
        file.seek(446)
        file.write(rows.ljust(64, b"\0") + b"\x55\xaa")
    return path
