"""What an archive holds, in a form in which two can be compared, and trees with one of everything."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
from pathlib import Path
from typing import BinaryIO

from humfs.importer import Member
from humfs.tarball import opened
from tests import needs
from tests.humfs import trees

Entry = tuple[int, int, int, int, int, int, bytes, str, tuple[tuple[bytes, bytes], ...]]
"""Mode, owner, group, device, nanoseconds, size, target, digest of the contents, attributes."""


def entries(stream: BinaryIO) -> tuple[dict[bytes, Entry], set[frozenset[bytes]]]:
    """Every path with all that is known of it, and which paths are names of one file."""
    found: dict[bytes, Entry] = {}
    groups: dict[bytes, set[bytes]] = {}
    with opened(stream) as archive:
        for made in archive:
            path = os.path.normpath(b"/".join(made.path) or b".")
            if made.link is not None:
                first = os.path.normpath(b"/".join(made.link))
                groups.setdefault(first, {first}).add(path)
                found[path] = found[first]
                continue
            mtime = made.mtime_ns
            found[path] = (
                *(made.mode, made.uid, made.gid, made.rdev, mtime, made.size, made.target, digest_of(made)),
                tuple(sorted(made.xattrs)),
            )
    return found, {frozenset(names) for names in groups.values()}


def contents_of(made: Member) -> bytes:
    """A file's contents, its holes as zeroes."""
    if made.source is not None:
        stored = os.pread(made.source[0], made.stored, made.source[1])
    else:
        stored = made.contents.read(made.stored) if made.contents is not None else b""
    if made.ranges is None:
        return stored
    whole, done = bytearray(made.size), 0
    for start, length in made.ranges:
        whole[start : start + length] = stored[done : done + length]
        done += length
    return bytes(whole)


def digest_of(made: Member) -> str:
    return hashlib.sha256(contents_of(made)).hexdigest() if stat.S_ISREG(made.mode) else ""


def of_file(path: Path) -> tuple[dict[bytes, Entry], set[frozenset[bytes]]]:
    with open(path, "rb") as stream:
        return entries(stream)


def make_tree(path: Path) -> None:
    """One of everything, as root: also a file with holes, an access list, a capability, and long names and targets."""
    trees.make(path)
    with open(path / "holes", "wb") as file:
        file.seek(3 << 20)
        file.write(b"middle")
        file.truncate((8 << 20) + 5)
    subprocess.run([needs.program("setfacl"), "-m", "u:1234:rwx", path / "file"], check=True)
    subprocess.run([needs.program("setfacl"), "-d", "-m", "g:77:rx", path / "dir"], check=True)
    (path / "capable").write_bytes(b"#!/bin/true\n")
    os.setxattr(path / "capable", "security.capability", b"\x01\x00\x00\x02\x00\x20" + bytes(14))
    deep = path / ("d" * 200) / ("e" * 200)
    deep.mkdir(parents=True)
    (deep / ("f" * 255)).write_bytes(b"deep")
    os.symlink("t/" * 150, path / "long")
    for number in range(600):
        (path / "emptydir" / f"{'n' * 40}{number}").touch()
    os.utime(path / "emptydir", ns=(9, 1_600_000_000_000_000_001))


def allocated(path: Path) -> int:
    """The bytes that a file or a tree takes on the host."""
    paths = [path, *path.rglob("*")] if path.is_dir() else [path]
    return sum(each.lstat().st_blocks * 512 for each in paths if not stat.S_ISDIR(each.lstat().st_mode))
