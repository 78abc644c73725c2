"""What an archive holds, in a form in which two can be compared, and trees with one of everything."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
from pathlib import Path
from typing import BinaryIO

from humfs.tarball import member, members, opened
from tests import needs
from tests.humfs import trees

Entry = tuple[int, int, int, int, int, int, bytes, str, tuple[tuple[bytes, bytes], ...]]
"""Mode, owner, group, device, nanoseconds, size, target, digest of the contents, attributes."""


def entries(stream: BinaryIO) -> tuple[dict[bytes, Entry], set[frozenset[bytes]]]:
    """Every path with all that is known of it, and which paths are names of one file."""
    found: dict[bytes, Entry] = {}
    groups: dict[bytes, set[bytes]] = {}
    with opened(stream) as archive:
        for info in members(archive):
            path = os.path.normpath(os.fsencode(info.name))
            if info.islnk():
                first = os.path.normpath(os.fsencode(info.linkname))
                groups.setdefault(first, {first}).add(path)
                found[path] = found[first]
                continue
            made = member(archive, info)
            assert made is not None
            source = archive.extractfile(info) if info.isfile() else None
            digest = hashlib.sha256(source.read()).hexdigest() if source else ""
            mtime = made.mtime_ns
            found[path] = (
                *(made.mode, made.uid, made.gid, made.rdev, mtime, made.size, made.target, digest),
                tuple(sorted(made.xattrs)),
            )
    return found, {frozenset(names) for names in groups.values()}


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
