"""A kernel of Debian's, of any suite, into the store: unpacked, not installed."""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from runtime.kernels import library, store
from runtime.kernels.apt import NEWEST, SUITES, Apt, Package, Say
from runtime.kernels.kernel import ask, check_content
from runtime.kernels.programs import must
from umlfs.errors import UmlError

PACKAGE: Final = "user-mode-linux"
LIBC: Final = "libc6"
ROOM: Final = 400 << 20
"""Bytes that a kernel takes on disk while it is unpacked, with its modules, and some to spare."""

Trial = Callable[[Path], None]
"""Boots a guest of the kernel at a path; UmlError if that does not run a command."""


def install(
    wanted: str | None,
    *,
    name: str | None = None,
    mirror: str | None = None,
    keyring: str | None = None,
    trial: Trial,
    say: Say = lambda line: None,
) -> tuple[store.StoredKernel, bool]:
    """Fetch the kernel of a suite or version (by default the newest of testing), unpack it, bind it to the C library
    that it needs, and try it; and whether it was there already. UmlError, with nothing left behind."""
    check_room(store.directory(), ROOM)
    is_version = bool(wanted and wanted[0].isdigit())
    apt = Apt(SUITES if is_version else [wanted or NEWEST], mirror=mirror, keyring=keyring, say=say)
    apt.update()
    package = pick(apt.versions(PACKAGE), wanted if is_version else None, apt.source.uri)
    there = _there(package, name)
    if there is not None:
        return there, True
    files = [apt.download(package)]
    with tempfile.TemporaryDirectory(prefix=".unpack-", dir=_parent()) as text:
        unpacked = Path(text)
        _unpack(files[0], unpacked)
        kernel = unpacked / "usr/bin/linux.uml"
        if not kernel.is_file():
            raise UmlError(f"{package}: has no usr/bin/linux.uml in it", "choose another version")
        check_content(kernel)
        version = _version(unpacked)
        with store.adding(name or version) as place:
            say(f"unpacking Linux {version}")
            shutil.move(kernel, place / store.KERNEL)
            shutil.move(unpacked / "usr/lib/uml/modules", place / "modules")
            if not library.runs_here(place / store.KERNEL):
                libc = newest_with(apt, package)
                files.append(apt.download(libc))
                library.take(files[-1], place)
                library.bind(place / store.KERNEL, place / "lib")
            entry = complete(
                place,
                store.About(
                    version,
                    f"Debian {package.suite}",
                    str(package),
                    checksums={path.name: checksum(path) for path in files},
                ),
                trial,
                say,
            )
    apt.forget(*files)
    return entry, False


def complete(place: Path, about: store.About, trial: Trial, say: Say) -> store.StoredKernel:
    """Try the kernel in `place`, and finish it. UmlError for one that does not run a guest's command here."""
    version = ask(place / store.KERNEL, "--version").strip()
    if version != about.version:
        raise UmlError(f"the kernel calls itself {version}, its modules are those of {about.version}", "choose another")
    say(f"trying Linux {version}")
    try:
        trial(place / store.KERNEL)
    except UmlError as error:
        raise UmlError(
            f"Linux {version} does not run guests here: {error.what}",
            "'uml doctor' looks for what this host lacks",
            details=error.details,
        ) from error
    return store.finish(place, about)


def pick(found: list[Package], version: str | None, mirror: str) -> Package:
    """The newest package, or that of a version. UmlError."""
    if version is not None:
        begin = re.compile(rf"{re.escape(version)}(?![0-9])")
        matching = [package for package in found if begin.match(package.version)]
    else:
        matching = found
    if matching:
        return matching[0]
    versions = ", ".join(dict.fromkeys(f"{package.version} ({package.suite})" for package in found)) or "none"
    what = f"no {PACKAGE} {version}" if version else f"no {PACKAGE}"
    raise UmlError(f"{what} at {mirror}", f"there is {versions}")


def newest_with(apt: Apt, package: Package) -> Package:
    """The C library of the same suite."""
    found = apt.versions(LIBC)
    if not found:
        raise UmlError(f"{package} needs another C library, and there is none at {apt.source.uri}", "try another suite")
    return next((each for each in found if each.suite == package.suite), found[0])


def _there(package: Package, name: str | None) -> store.StoredKernel | None:
    return next(
        (each for each in store.entries() if each.about.package == str(package) and name in (None, each.name)), None
    )


def _parent() -> Path:
    """Where to unpack: on the filesystem of the store, so that moving is quick."""
    parent = store.directory()
    parent.mkdir(parents=True, exist_ok=True)
    return parent


def check_room(place: Path, size: int) -> None:
    """UmlError if less than `size` bytes are free where `place` is, or is to be."""
    there = next(path for path in (place, *place.parents) if path.exists())
    free = shutil.disk_usage(there).free
    if free < size:
        raise UmlError(
            f"{there}: {free >> 20} MiB are free, {size >> 20} are needed",
            "make room, or name another place in XDG_DATA_HOME",
        )


def _unpack(package: Path, place: Path) -> None:
    must(["dpkg-deb", "-x", package, place], f"{package.name}: cannot be unpacked", "is there space?")


def _version(unpacked: Path) -> str:
    found = sorted(path.parent.name for path in (unpacked / "usr/lib/uml/modules").glob("*/modules.dep"))
    if len(found) != 1:
        raise UmlError(f"the package has modules of {len(found)} kernels, not of one", "choose another version")
    return found[0]


def checksum(path: Path) -> str:
    """The SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
