"""A kernel's source: a tree, an archive of one, or a package of Debian's."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from runtime.host import cache
from runtime.kernels.apt import NEWEST, Apt, Say
from runtime.kernels.install import check_room
from runtime.kernels.programs import must
from umlfs.errors import UmlError, UsageError

PACKAGE: Final = re.compile(r"linux-source(-\d+\.\d+)?\Z")
ROOM: Final = 4 << 30
"""Bytes for a tree and what is built of it."""
SCRATCH: Final = ".unpack-"


def workshop() -> Path:
    """Where sources are unpacked and kernels are built. UmlError if there is no cache directory."""
    root = cache.directory()
    if root is None:
        raise UmlError("no cache directory to build in", "name one in XDG_CACHE_HOME")
    (root / "build").mkdir(exist_ok=True)
    return root / "build"


def source_tree(source: str | None, *, mirror: str | None, keyring: str | None, say: Say) -> Path:
    """The tree that `source` names: a directory, an archive, a package such as linux-source-6.12; by default the newest
    of those. UmlError."""
    if source is None or PACKAGE.match(source):
        return _of_package(source, mirror, keyring, say)
    path = Path(source).absolute()
    if path.is_dir():
        return checked(path)
    if path.is_file():
        return _unpacked(path, re.sub(r"\.(tar(\.\w+)?|tgz)$", "", path.name), say)
    raise UsageError(
        f"{source}: no such tree, archive or package", "name a directory, a tar file, or linux-source-6.12"
    )


def checked(tree: Path) -> Path:
    """The tree. UmlError if it is none of a kernel that has UML."""
    if not (tree / "Kbuild").is_file() or not (tree / "arch/um/Makefile").is_file():
        raise UmlError(f"{tree}: not the source of a kernel with arch/um", "name the top of a kernel's tree")
    return tree


def _of_package(name: str | None, mirror: str | None, keyring: str | None, say: Say) -> Path:
    apt = Apt([NEWEST, "stable"] if name else [NEWEST], mirror=mirror, keyring=keyring, say=say)
    apt.update()
    found = [name] if name and name != "linux-source" else apt.search(r"linux-source-\d+\.\d+\Z")
    newest = max(found, key=lambda each: [int(number) for number in re.findall(r"\d+", each)], default="linux-source")
    versions = apt.versions(newest)
    if not versions:
        raise UmlError(f"no package {newest} at {apt.source.uri}", "name a tree or a tar file instead")
    key = f"{newest}_{versions[0].version}"
    there = workshop() / key
    if there.is_dir():
        return checked(there)
    check_room(workshop(), ROOM)
    package = apt.download(versions[0])
    with _scratch() as scratch:
        must(["dpkg-deb", "-x", package, scratch], f"{package.name}: cannot be unpacked", "is there space?")
        archives = list(scratch.glob("usr/src/linux-source-*.tar.*"))
        if len(archives) != 1:
            raise UmlError(f"{package.name}: has no source of a kernel", "name a tree or a tar file instead")
        tree = _unpacked(archives[0], key, say)
    apt.forget(package)
    return tree


def _unpacked(archive: Path, key: str, say: Say) -> Path:
    there = workshop() / key
    if there.is_dir():
        return checked(there)
    check_room(workshop(), ROOM)
    say(f"unpacking {archive.name}")
    with _scratch() as scratch:
        must(["tar", "-x", "-f", archive, "-C", scratch], f"{archive}: cannot be unpacked", "is it a tar file?")
        tops = list(scratch.iterdir())
        checked(tops[0] if len(tops) == 1 else scratch)
        os.rename(tops[0] if len(tops) == 1 else scratch, there)
    return there


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    """A new directory of the workshop, gone afterwards. Those of killed processes go first: nobody locks them."""
    with contextlib.ExitStack() as held:
        with _locked(workshop()):
            for left in workshop().glob(SCRATCH + "*"):
                with contextlib.suppress(OSError), _locked(left, fcntl.LOCK_NB):
                    shutil.rmtree(left, ignore_errors=True)
            place = Path(tempfile.mkdtemp(prefix=SCRATCH, dir=workshop()))
            held.enter_context(_locked(place))
        try:
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)


@contextlib.contextmanager
def _locked(directory: Path, how: int = 0) -> Iterator[None]:
    number = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(number, fcntl.LOCK_EX | how)
        yield
    finally:
        os.close(number)
