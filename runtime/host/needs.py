"""What commands need of this host beside guests themselves: one table, for the commands, `uml doctor` and the docs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from umlfs.errors import UmlError


@dataclass(frozen=True, slots=True)
class Need:
    """One thing."""

    name: str
    """A program, or what `uml doctor` calls it."""
    commands: tuple[str, ...]
    """Those that need it, without `uml`."""
    purpose: str
    """What they need it for."""
    package: str = ""
    """Debian's package that has the program."""


LOOKING: Final = ("ls", "cat", "cp", "find", "df", "diff")
_IMAGES: Final = ("image build", "image convert", "image create")
_MAKING: Final = "images of that filesystem"
_KERNEL: Final = "kernels from source"
_PACKING: Final = "what is compressed by it"
NEEDS: Final = (
    Need("/dev/fuse", ("mount",), "mounts on this host"),
    Need("fusermount3", ("mount", "umount"), "mounts on this host without root", "fuse3"),
    Need("/etc/mtab", ("umount",), "the end of mounts without root"),
    Need("pyfuse3", ("mount",), "mounts on this host"),
    Need("slirp4netns", ("run", "boot"), "--net user: the internet for guests", "slirp4netns"),
    Need("user namespaces", ("net create", "image build"), "networks between machines, and images, without root"),
    Need("compiler", (*LOOKING, "mount", "run", "boot"), "our C programs, where the installation has none", "gcc"),
    Need("qemu-nbd", (*LOOKING, "run", "boot", "mount", "serve nbd"), "disks in qemu's formats", "qemu-utils"),
    Need(
        "qemu-img", (*_IMAGES, "image compact", "image check", "image resize"), "disks in qemu's formats", "qemu-utils"
    ),
    Need("mmdebstrap", ("image build",), "Debian's packages in an image", "mmdebstrap"),
    Need("newuidmap", ("image build",), "files of several users, without root", "uidmap"),
    Need("mkfs.ext4", _IMAGES, _MAKING, "e2fsprogs"),
    Need("e2fsck", ("image check", "image resize"), _MAKING, "e2fsprogs"),
    Need("resize2fs", ("image resize",), _MAKING, "e2fsprogs"),
    Need("mkfs.xfs", _IMAGES, _MAKING, "xfsprogs"),
    Need("xfs_repair", ("image check",), _MAKING, "xfsprogs"),
    Need("xfs_growfs", ("image resize",), _MAKING, "xfsprogs"),
    Need("mkfs.btrfs", _IMAGES, _MAKING, "btrfs-progs"),
    Need("btrfs", ("image check", "image resize"), _MAKING, "btrfs-progs"),
    Need("fsck.fat", ("image check",), _MAKING, "dosfstools"),
    Need("mksquashfs", _IMAGES[:2], _MAKING, "squashfs-tools"),
    Need("mkfs.erofs", _IMAGES[:2], _MAKING, "erofs-utils"),
    Need("sfdisk", ("image resize",), "the table of a disk with partitions", "fdisk"),
    Need("tar", _IMAGES[:2], "directories", "tar"),
    Need("bsdtar", ("image convert", *LOOKING), "archives that are no tar, zip or cpio", "libarchive-tools"),
    Need("skopeo", ("image convert", "run", "boot", "mount", *LOOKING), "images in registries (docker://)", "skopeo"),
    Need("gzip", _IMAGES[:2], _PACKING, "gzip"),
    Need("bzip2", _IMAGES[:2], _PACKING, "bzip2"),
    Need("xz", _IMAGES[:2], _PACKING, "xz-utils"),
    Need("zstd", _IMAGES[:2], _PACKING, "zstd"),
    Need("lz4", ("image convert",), _PACKING, "lz4"),
    Need("lzop", ("image convert",), _PACKING, "lzop"),
    Need("lzip", ("image convert",), _PACKING, "lzip"),
    Need("mkfs.ocfs2", ("cluster init",), "the disk that its nodes share", "ocfs2-tools"),
    Need("ssh", ("ssh", "move"), "connections to guests and to other hosts", "openssh-client"),
    Need("ssh-keygen", ("ssh",), "keys of its own", "openssh-client"),
    Need("gdb", ("gdb",), "the kernel of a machine", "gdb"),
    Need("make", ("kernel build",), _KERNEL, "make"),
    Need("gcc", ("kernel build",), _KERNEL, "gcc"),
    Need("ld", ("kernel build",), _KERNEL, "binutils"),
    Need("flex", ("kernel build",), _KERNEL, "flex"),
    Need("bison", ("kernel build",), _KERNEL, "bison"),
    Need("bc", ("kernel build",), _KERNEL, "bc"),
    Need("apt-get", ("kernel install",), "Debian's kernels", "apt"),
    Need("dpkg-deb", ("kernel install",), "Debian's kernels", "dpkg"),
)
"""Each is named once. The first are what `uml doctor` tries out, the others programs that it looks for."""
_BY_NAME: Final = {each.name: each for each in NEEDS}


def purposes(*needs: Need) -> str:
    """What they are for, with the commands."""
    by_purpose: dict[str, dict[str, None]] = {}
    for each in needs:
        by_purpose.setdefault(each.purpose, {}).update(dict.fromkeys(each.commands))
    return "; ".join(f"{purpose} ({shown(list(commands))})" for purpose, commands in by_purpose.items())


def shown(commands: Sequence[str]) -> str:
    """Commands, those of a group together: `uml ls|cat, uml image build|check`."""
    groups: dict[str, list[str]] = {}
    for each in commands:
        group, _, name = each.rpartition(" ")
        groups.setdefault(group, []).append(name)
    return ", ".join(" ".join(filter(None, ("uml", group, "|".join(names)))) for group, names in groups.items())


def need(name: str) -> Need:
    """The entry of the table. KeyError for what is not in it."""
    return _BY_NAME[name]


def of_command(command: str) -> list[Need]:
    """What a command may need, by its words and options."""
    return [each for each in NEEDS if command in each.commands]


def path_of(name: str) -> str | None:
    """Where a program of the table is, also one that is not in an ordinary user's PATH; None if it is not there."""
    return shutil.which(need(name).name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")


def find_program(name: str) -> str:
    """Where a program of the table is. UmlError naming its package."""
    found = path_of(name)
    if found is None:
        raise UmlError(f"the program {name} is not there", f"install it with `apt install {need(name).package}`")
    return found
