"""The formats of images: what a path holds, and what one that is to be made is to hold."""

from __future__ import annotations

import enum
import os
import re
import tarfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Final

from humfs.image import find_image, is_packed_image
from humfs.tarball import members, opened
from umlfs.blocks.foreign import format_of
from umlfs.cow.file import peek_header
from umlfs.errors import UmlError, UsageError


class Format(enum.Enum):
    """What an image is."""

    RAW = "raw"
    """A disk or a filesystem, byte for byte. One made of files holds ext4."""
    EXT4 = "ext4"
    """A raw image that is to hold ext4, whatever the source holds."""
    COW = "cow"
    QCOW2 = "qcow2"
    QED = "qed"
    VMDK = "vmdk"
    VDI = "vdi"
    VPC = "vpc"
    """VHD, as qemu calls it."""
    VHDX = "vhdx"
    PARALLELS = "parallels"
    HUMFS = "humfs"
    DIRECTORY = "dir"
    TAR = "tar"
    OCI = "oci"

    @property
    def is_disk(self) -> bool:
        """Blocks, in which the guest's kernel finds the files."""
        return self in _DISKS

    @property
    def by_qemu(self) -> bool:
        """qemu reads and writes it for us; it has the same name there."""
        return self in _BY_QEMU


_BY_QEMU: Final = frozenset(
    {Format.QCOW2, Format.QED, Format.VMDK, Format.VDI, Format.VPC, Format.VHDX, Format.PARALLELS}
)
_DISKS: Final = frozenset({Format.RAW, Format.EXT4, Format.COW}) | _BY_QEMU
MADE: Final = tuple(each for each in Format if each is not Format.COW)
"""What can be made."""
_SCHEMES: Final = {each.value: each for each in Format} | {"hostfs": Format.DIRECTORY}
_SUFFIXES: Final = {
    ".img": Format.RAW,
    ".raw": Format.RAW,
    ".ext4": Format.EXT4,
    ".qcow2": Format.QCOW2,
    ".qed": Format.QED,
    ".vmdk": Format.VMDK,
    ".vdi": Format.VDI,
    ".vhd": Format.VPC,
    ".vpc": Format.VPC,
    ".vhdx": Format.VHDX,
    ".humfs": Format.HUMFS,
    ".oci": Format.OCI,
    ".tar": Format.TAR,
    ".tgz": Format.TAR,
    ".txz": Format.TAR,
}
_COMPRESSED: Final = {".gz": "gzip", ".tgz": "gzip", ".xz": "xz", ".txz": "xz", ".zst": "zstd"}
_COMPRESSED_MAGICS: Final = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd")
_TAR_MAGIC: Final = slice(257, 262)
_PARTITION: Final = re.compile(r"(.+):([0-9]{1,3})\Z", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Image:
    """A path and what is there, or is to be made there."""

    path: Path
    format: Format
    partition: int | None = None
    """Of a disk, where not the whole is meant."""

    @property
    def word(self) -> str:
        """The `SRC` word of a disk."""
        scheme = "cow" if self.format is Format.COW else "raw"
        return f"{scheme}:{os.path.abspath(self.path)}"

    @property
    def compressor(self) -> str | None:
        """The program that a tar file of this name is compressed with."""
        return _COMPRESSED.get(self.path.suffix)


def source(word: str) -> Image:
    """What is there; of a disk, `:N` after its path is a partition. UsageError for what is no image; UmlError if it
    cannot be read."""
    scheme, colon, rest = word.partition(":")
    if colon and scheme in _SCHEMES and not os.path.lexists(word):
        found = Image(Path(rest), _SCHEMES[scheme])
        numbered = _PARTITION.match(rest)
        if numbered is not None and not found.path.exists():
            return _part(source(f"{scheme}:{numbered[1]}"), int(numbered[2]))
        if not found.path.exists():
            raise UsageError(f"{rest}: no such file or directory", "name an existing image")
        return found
    path = Path(word)
    numbered = _PARTITION.match(word)
    if numbered is not None and not path.exists():
        return _part(source(numbered[1]), int(numbered[2]))
    if not path.exists():
        raise UsageError(f"{word}: no such file or directory", "name an existing image")
    try:
        return Image(path, _directory(path) if path.is_dir() else _file(path))
    except OSError as error:
        raise UmlError(f"{word}: {error.strerror}", None) from error


def _part(disk: Image, number: int) -> Image:
    if not disk.format.is_disk:
        raise UsageError(f"{disk.path}: no disk, so it has no partitions", "leave out the number")
    return replace(disk, partition=number)


def _directory(path: Path) -> Format:
    if (path / "superblock").is_file() and (path / "data").is_dir():
        return Format.HUMFS
    return Format.OCI if find_image(path) is not None else Format.DIRECTORY


def _file(path: Path) -> Format:
    if not path.is_file() and not path.is_block_device():
        raise UsageError(f"{path}: neither a file nor a directory nor a block device", "name an image")
    by_qemu = format_of(path)
    if by_qemu is not None:
        return Format(by_qemu)
    with open(path, "rb") as file:
        head = file.read(512)
        if head[_TAR_MAGIC] == b"ustar":
            file.seek(0)
            return Format.OCI if _is_packed(file) else Format.TAR
    if head.startswith(_COMPRESSED_MAGICS):
        return Format.TAR
    return Format.COW if peek_header(str(path)) is not None else Format.RAW


def _is_packed(file: BinaryIO) -> bool:
    """Whether a tar archive is a container image rather than a tree, by its first member but for the root itself."""
    with opened(file) as archive:
        for info in members(archive):
            if info.type != tarfile.DIRTYPE or os.path.normpath(info.name) != ".":
                return is_packed_image(info.name)
    return False


def destination(word: str, format_: Format | None = None) -> Image:
    """What is to be made, as `format_` or a scheme before the path says, else the end of the name. UsageError."""
    scheme, colon, rest = word.partition(":")
    if colon and scheme in _SCHEMES:
        word, format_ = rest, format_ or _SCHEMES[scheme]
    path = Path(word)
    if not path.name:
        raise UsageError(f"'{word}' names no file", "name the image that is to be made")
    suffix = path.suffixes[-2] if path.suffix in (".gz", ".xz", ".zst") and len(path.suffixes) > 1 else path.suffix
    format_ = format_ or _SUFFIXES.get(suffix)
    if format_ is None:
        raise UsageError(
            f"{word}: the name does not tell the format", f"say --format {'|'.join(f.value for f in MADE)}"
        )
    if format_ is Format.COW:
        raise UsageError(f"{word}: a COW file is made over an image that stays", "see 'uml cow create --help'")
    return Image(path, format_)
