"""The formats of images: what a path holds, and what one that is to be made is to hold."""

from __future__ import annotations

import enum
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Final

from humfs.archive import is_packed_image
from humfs.compression import LOOK, beginning, compression
from humfs.image import find_image
from humfs.tarheader import BLOCK, is_header
from runtime.archives.kinds import OTHERS
from runtime.host.needs import need, path_of
from umlfs.blocks.foreign import format_of, format_of_head
from umlfs.blocks.probe import HEAD, kind_of
from umlfs.cow.file import peek_header
from umlfs.errors import UmlError, UsageError, no_such

STANDARD: Final = "-"
"""The name that means standard input, or output."""


class Format(enum.Enum):
    """What an image is."""

    RAW = "raw"
    """A disk or a filesystem, byte for byte. One made of files holds ext4."""
    EXT4 = "ext4"
    """A raw image that is to hold ext4, whatever the source holds."""
    XFS = "xfs"
    BTRFS = "btrfs"
    SQUASHFS = "squashfs"
    EROFS = "erofs"
    COW = "cow"
    QCOW2 = "qcow2"
    VMDK = "vmdk"
    VDI = "vdi"
    VPC = "vpc"
    """VHD, as qemu calls it."""
    VHDX = "vhdx"
    QED = "qed"
    PARALLELS = "parallels"
    HUMFS = "humfs"
    DIRECTORY = "dir"
    TAR = "tar"
    OCI = "oci"
    ARCHIVE = "archive"
    """One of another kind than tar (zip, cpio, 7z, ...), which libarchive reads."""

    @property
    def is_disk(self) -> bool:
        """Blocks, in which the guest's kernel finds the files."""
        return self in _DISKS or self.is_filesystem

    @property
    def is_filesystem(self) -> bool:
        """A raw image that is to hold this filesystem."""
        return self in _FILESYSTEMS

    @property
    def qemu(self) -> str | None:
        """Of a format that qemu reads and writes for us: its name there."""
        return self.value if self in _BY_QEMU else None


_FILESYSTEMS: Final = frozenset({Format.EXT4, Format.XFS, Format.BTRFS, Format.SQUASHFS, Format.EROFS})
_BY_QEMU: Final = frozenset(
    {Format.QCOW2, Format.QED, Format.VMDK, Format.VDI, Format.VPC, Format.VHDX, Format.PARALLELS}
)
_DISKS: Final = frozenset({Format.RAW, Format.COW}) | _BY_QEMU
MADE: Final = tuple(each for each in Format if each not in (Format.COW, Format.ARCHIVE))
"""What can be made."""
_SCHEMES: Final = {each.value: each for each in Format} | {"hostfs": Format.DIRECTORY}
_SUFFIXES: Final = {
    ".img": Format.RAW,
    ".raw": Format.RAW,
    ".ext4": Format.EXT4,
    ".xfs": Format.XFS,
    ".btrfs": Format.BTRFS,
    ".squashfs": Format.SQUASHFS,
    ".sqfs": Format.SQUASHFS,
    ".erofs": Format.EROFS,
    ".qcow2": Format.QCOW2,
    ".vmdk": Format.VMDK,
    ".vdi": Format.VDI,
    ".vhd": Format.VPC,
    ".vpc": Format.VPC,
    ".vhdx": Format.VHDX,
    ".qed": Format.QED,
    ".humfs": Format.HUMFS,
    ".oci": Format.OCI,
    ".tar": Format.TAR,
    ".tgz": Format.TAR,
    ".txz": Format.TAR,
}
_COMPRESSED: Final = {".gz": "gzip", ".tgz": "gzip", ".xz": "xz", ".txz": "xz", ".zst": "zstd", ".bz2": "bzip2"}
_UNREADABLE: Final = (
    ("a BitLocker volume", 3, b"-FVE-FS-"),
    ("an NTFS filesystem", 3, b"NTFS    "),
    ("an exFAT filesystem", 3, b"EXFAT   "),
    ("an APFS container", 32, b"NXSB"),
    ("an HFS+ filesystem", 1024, b"H+\0"),
    ("an EnCase image", 0, b"EVF\x09\x0d\x0a"),
    ("an AFF image", 0, b"AFF10\r\n"),
    ("a Windows image (WIM)", 0, b"MSWIM\0\0\0"),
    ("an Android sparse image", 0, b"\x3a\xff\x26\xed"),
    ("an Apple disk image (UDIF)", 0, b"koly"),
)
_WITHIN: Final = re.compile(r"(.+?):([0-9]{1,3})?(/.*)?\Z", re.DOTALL)
"""A disk, a partition of it, a directory in that."""
_TAGGED: Final = re.compile(r"(.+):([A-Za-z0-9_][A-Za-z0-9._-]{0,127}|[^:]+/[^:]+:[A-Za-z0-9._-]+)\Z", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Image:
    """A path and what is there, or is to be made there."""

    path: Path
    format: Format
    partition: int | None = None
    """Of a disk, where not the whole is meant."""
    inside: str = "/"
    """Of a disk: the directory in its filesystem (a subvolume, say) that is meant."""
    tag: str | None = None
    """Of container images: the name of the one that is meant."""
    compression: str | None = None
    """What a disk is compressed with."""
    volume: str = ""
    """Of a volume on a disk: the argument of `volume:` that names it."""
    reference: str = ""
    """Of a container image in a registry: its name."""
    shown: str = ""
    """What it is called in messages, where its path is one that nobody knows."""

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.shown or str(self.path)

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
    """What is there. Of a disk, `:N` after its path is a partition, and a path after that a directory in it; of a
    container image, `oci:PATH:NAME` is the one of that name. UsageError for what is no image; UmlError if it cannot be
    read."""
    scheme, colon, rest = word.partition(":")
    if scheme == "docker" and rest.startswith("//"):
        return _in_registry(word)
    if scheme == "volume" and (volume := _volume(word)) is not None:
        return volume
    if colon and scheme in _SCHEMES and not os.path.lexists(word):
        return _named(_SCHEMES[scheme], rest)
    if word == STANDARD:
        return Image(Path(word), Format.ARCHIVE, shown="standard input")
    path = Path(word)
    if not path.exists():
        within = _WITHIN.match(word)
        if within is not None and (within[2] or within[3]) and os.path.exists(within[1]):
            return _within(source(within[1]), within[2], within[3])
        if (volume := _volume(word)) is not None:
            return volume
        raise no_such(word, "name an existing image")
    try:
        return _directory(path) if path.is_dir() else _file(path)
    except OSError as error:
        raise UmlError(f"{word}: {error.strerror}", None) from error


def _in_registry(word: str) -> Image:
    """A container image in a registry."""
    from runtime.containers import reference

    image = reference.parse(word.partition(":")[2])
    return Image(Path(word), Format.OCI, reference=image.short, shown=word)


def _volume(word: str) -> Image | None:
    """A volume on a disk, and a directory in it."""
    from umlfs import sources

    try:
        found, inside = sources.split(word)
    except UsageError:
        return None
    if found.scheme != "volume":
        return None
    return Image(Path(found.files[0]), Format.RAW, inside=inside or "/", volume=found.argument, shown=word)


def _named(format_: Format, rest: str) -> Image:
    """What is at a path, where its kind was said."""
    if rest == STANDARD or os.path.exists(rest):
        return Image(Path(rest), format_)
    tagged = _TAGGED.match(rest) if format_ is Format.OCI else None
    if tagged is not None and os.path.exists(tagged[1]):
        return Image(Path(tagged[1]), format_, tag=tagged[2])
    within = _WITHIN.match(rest)
    if within is not None and (within[2] or within[3]) and os.path.exists(within[1]):
        return _within(_named(format_, within[1]), within[2], within[3])
    raise no_such(rest, "name an existing image")


def _within(disk: Image, number: str | None, inside: str | None) -> Image:
    if not disk.format.is_disk:
        raise UsageError(f"{disk.path}: no disk, so it has no partitions", "leave out what follows the colon")
    return replace(disk, partition=int(number) if number else None, inside=inside or "/")


def _directory(path: Path) -> Image:
    if (path / "superblock").is_file() and (path / "data").is_dir():
        return Image(path, Format.HUMFS)
    return Image(path, Format.OCI if find_image(path) is not None else Format.DIRECTORY)


def _file(path: Path) -> Image:
    if not path.is_file() and not path.is_block_device():
        raise UsageError(f"{path}: neither a file nor a directory nor a block device", "name an image")
    by_qemu = format_of(path)
    if by_qemu is not None:
        return Image(path, Format(by_qemu))
    with open(path, "rb") as file:
        head = file.read(HEAD)
        pressed = compression(head)
        if pressed is not None:
            head = beginning(head + file.read(LOOK), HEAD)
            _require_program(path, pressed)
        file.seek(0)
        found = _of_head(path, head, file)
    if found is None and pressed is not None:
        raise UsageError(
            f"{path}: compressed with {pressed}, and what is in it is no archive and no disk",
            "decompress it, and say raw:FILE if it is a disk",
        )
    if found is None:
        found = Format.COW if peek_header(str(path)) is not None else Format.RAW
    return Image(path, found, compression=pressed if found.is_disk else None)


_BY_PROGRAM: Final = frozenset({"zstd", "lz4", "lzop", "lzip"})
"""What no module of Python's undoes."""


def _require_program(path: Path, pressed: str) -> None:
    """UsageError for a compression that this host has no program for."""
    if pressed in _BY_PROGRAM and path_of(pressed) is None:
        package = need(pressed).package
        raise UsageError(f"{path}: compressed with {pressed}", f"install it with `apt install {package}`")


def _of_head(path: Path, head: bytes, file: BinaryIO) -> Format | None:
    """What begins with `head`; None for nothing that is known. UsageError for what is known and cannot be read."""
    if is_header(head[:BLOCK]):
        return Format.OCI if is_packed_image(file) else Format.TAR
    if (named := format_of_head(head)) is not None:
        return Format(named)
    if any(head.startswith(magic) for magic, _ in OTHERS):
        return Format.ARCHIVE
    for what, offset, magic in _UNREADABLE:
        if head.startswith(magic, offset):
            raise UsageError(f"{path}: {what}, which umlfs cannot read", "raw:FILE takes its bytes as they are")
    if kind_of(head) is not None:
        return Format.RAW
    return Format.TAR if head and not head.strip(b"\0") and path.suffix in (".tar", *_COMPRESSED) else None


def destination(word: str, format_: Format | None = None) -> Image:
    """What is to be made, as `format_` or a scheme before the path says, else the end of the name. UsageError."""
    scheme, colon, rest = word.partition(":")
    if colon and scheme in _SCHEMES:
        word, format_ = rest, format_ or _SCHEMES[scheme]
    tagged = _TAGGED.match(word) if format_ is Format.OCI else None
    path = Path(tagged[1] if tagged is not None else word)
    if not path.name:
        raise UsageError(f"'{word}' names no file", "name the image that is to be made")
    if word == STANDARD:
        if format_ not in (Format.TAR, None):
            raise UsageError(f"standard output takes a tar archive, no {format_.value}", "name a file")
        return Image(path, Format.TAR, shown="standard output")
    suffix = path.suffixes[-2] if path.suffix in _COMPRESSED and len(path.suffixes) > 1 else path.suffix
    format_ = format_ or _SUFFIXES.get(suffix)
    if format_ is None:
        raise UsageError(
            f"{word}: the name does not tell the format", f"say --format {'|'.join(f.value for f in MADE)}"
        )
    if format_ not in MADE:
        raise UsageError(f"{word}: a COW file is made over an image that stays", "see 'uml cow create --help'")
    if path.suffix in _COMPRESSED and format_ is not Format.TAR:
        raise UsageError(f"{word}: only a tar archive is made compressed", "leave out the last part of the name")
    return Image(path, format_, tag=tagged[2] if tagged is not None else None)


def layer(word: str) -> Image:
    """A layer that is to be made: a COW file or a qcow2, as a scheme before the path or the end of the name says.
    UsageError."""
    scheme, colon, rest = word.partition(":")
    if colon and scheme in ("cow", "qcow2"):
        return Image(Path(rest), Format(scheme))
    path = Path(word)
    if path.suffix not in (".cow", ".qcow2"):
        raise UsageError(f"{word}: the name does not tell which kind of layer", "call it NAME.cow or NAME.qcow2")
    return Image(path, Format(path.suffix[1:]))
