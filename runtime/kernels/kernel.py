"""Finding the UML kernel and the modules that belong to it: a file, one of the store, or what the distribution has."""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import re
import shutil
import subprocess
from functools import cache as memoized
from pathlib import Path
from typing import NamedTuple

from runtime.host import cache
from runtime.kernels import store
from umlfs.errors import UmlError
from umlfs.host.programs import run_program

PACKAGED_MODULES = Path("/usr/lib/uml/modules")
"""Where Debian's user-mode-linux package keeps them."""

HOST_MODULES = Path("/lib/modules")
"""Where `make modules_install` puts those of a self-built kernel."""

NAMES = ("linux.uml", "linux")

INSTALL = "install one with `apt install user-mode-linux` or 'uml kernel install', or name one with --kernel FILE"
LISTED = "'uml kernel list' shows those that there are, 'uml kernel install' fetches others; or name a file"
OTHER = "name a User-mode Linux kernel with --kernel FILE, or one that 'uml kernel list' shows"

ANSWER_TIMEOUT = 10.0
"""Seconds that a kernel gets for `--version`, which takes milliseconds: no kernel at all hangs for longer."""

_VERSION = re.compile(r"\d+\.\d+[\w.+~-]*\Z")
_MACHINES = (3, 62)
"""EM_386 and EM_X86_64 of the ELF format: what x86-64 hosts run."""
_MARK = b"User Mode Linux"
"""What the guest reads as vendor_id in its /proc/cpuinfo: text that every UML kernel holds."""


class Kernel(NamedTuple):
    """A UML kernel on this host."""

    path: Path
    """The executable, absolute."""
    version: str
    """What `uname -r` says in the guest."""
    modules: Path | None
    """The directory of the modules of exactly this version (with modules.dep in it), None if there is none."""


def find_kernel(path: str | os.PathLike[str] | None = None) -> Kernel:
    """The kernel at `path`, or of that name; by default `$UML_KERNEL`, else the one that was chosen, else the newest:
    of the store, or `linux.uml` or `linux` in PATH.

    UmlError if there is none, or what was named is no User-mode Linux kernel that can be run.
    Blocks for some milliseconds the first time, to ask the kernel for its version; later that is cached.
    """
    named = os.fspath(path) if path is not None else os.environ.get("UML_KERNEL") or None
    return _named(named) if named is not None else _default()


def _named(name: str) -> Kernel:
    if name == store.SYSTEM:
        return system_kernel()
    entry = store.find(name) if "/" not in name else None
    if entry is not None:
        return _open(entry.kernel)
    found = Path(name)
    if "/" not in name and not found.exists():
        program = shutil.which(name)
        if program is None:
            raise UmlError(f"{name}: no such kernel", LISTED)
        found = Path(program)
    return _open(found.absolute())


def _default() -> Kernel:
    """The kernel that was chosen, or else the newest."""
    name = store.chosen()
    if name is not None:
        return _named(name)
    newest = next((entry for entry in store.entries() if entry.is_natural), None)
    if newest is None:
        return system_kernel()
    try:
        installed = system_kernel()
    except UmlError:
        return _open(newest.kernel)
    return installed if store.ordered(installed.version) > store.ordered(newest.about.version) else _open(newest.kernel)


def kernel_name(kernel: Kernel) -> str:
    """What a person calls the kernel: its name in the store, or its file."""
    entry = store.entry(kernel.path.parent.name) if kernel.path.parent.parent == store.directory() else None
    return entry.name if entry is not None else str(kernel.path)


def system_kernel() -> Kernel:
    """The kernel that the distribution has installed. UmlError if there is none."""
    complaint = UmlError("no User-mode Linux kernel (linux.uml) in PATH", INSTALL)
    for name in NAMES:
        found = shutil.which(name)
        try:
            if found is not None:
                return _open(Path(found).absolute())
        except UmlError as error:
            # A program that only happens to be called `linux` is no kernel gone wrong.
            complaint = error if name == NAMES[0] else complaint
    raise complaint


def _open(path: Path) -> Kernel:
    """The kernel at `path`, all checks done; a cached version says that this very file passed them before."""
    _check_access(path)
    key = f"kernel-{identity(path)}"
    version = (cache.load(key, 256) or b"").decode("ascii", "replace")
    if not _VERSION.match(version):
        check_content(path)
        version = _version(path)
        if cache.store(key, version.encode()):
            cache.prune("kernel-*", keep=8)
    return Kernel(path, version, _modules(path, version))


def _check_access(path: Path) -> None:
    if not path.exists():
        raise UmlError(f"{path}: no such kernel", INSTALL)
    if not path.is_file():
        raise UmlError(f"{path}: not a kernel but a {'directory' if path.is_dir() else 'special file'}", OTHER)
    if not os.access(path, os.X_OK):
        raise UmlError(f"{path}: the kernel is not executable", f"try `chmod +x {path}`")


def check_content(path: Path) -> None:
    """UmlError unless `path` is a UML kernel by its looks: nothing else is to be run."""
    try:
        with open(path, "rb") as file:
            complaint = _complaint(file.fileno(), file.read(0x206))
    except OSError as error:
        raise UmlError(f"{path}: cannot read the kernel: {error.strerror}", OTHER) from error
    if complaint:
        raise UmlError(f"{path}: {complaint}", OTHER)


def _complaint(fd: int, head: bytes) -> str | None:
    if head[0x202:0x206] == b"HdrS":
        return "a kernel for a bare machine (bzImage), not a User-mode Linux kernel"
    if head.startswith(b"#!"):
        return "a script, not a User-mode Linux kernel"
    if not head.startswith(b"\x7fELF"):
        return "not an executable program, so not a User-mode Linux kernel"
    machine = int.from_bytes(head[18:20], "little")
    if machine and machine not in _MACHINES:
        return f"a program for another processor (ELF machine {machine}), this host is x86-64"
    with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as content:
        return None if content.find(_MARK) >= 0 else "a program, but not a User-mode Linux kernel"


def _version(path: Path) -> str:
    version = ask(path, "--version").strip()
    if not _VERSION.match(version):
        raise UmlError(f"{path}: not a User-mode Linux kernel: it calls its version {version[:40]!r}", OTHER)
    return version


def identity(path: Path) -> str:
    """A short name for the very file at `path`, another one after any change to it."""
    status = os.stat(path)
    text = f"{os.path.realpath(path)}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ino}"
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:24]


def has_name(kernel: Kernel, name: str) -> bool:
    """Whether the kernel takes `name=`, as the strings in its file tell. False if the file cannot be read."""
    with contextlib.suppress(OSError):
        return b"\0%s=\0" % os.fsencode(name) in kernel.path.read_bytes()
    return False


def ask(path: Path, option: str) -> str:
    """What the kernel prints for `option` (`--version`, `--showconfig`); UmlError if it fails. It is asked in a jail,
    where this host has one: whatever it is, it gets nothing else to do."""
    try:
        status, output = _ask(path, option)
    except subprocess.TimeoutExpired:
        raise UmlError(f"{path}: no answer to {option} in {ANSWER_TIMEOUT:.0f} s", OTHER) from None
    except OSError as error:
        raise UmlError(f"{path}: cannot be run: {error.strerror}", OTHER) from error
    if status != 0:
        raise UmlError(f"{path}: fails when asked for {option} (status {status})", OTHER)
    return output.decode("utf-8", "replace")


def _ask(path: Path, option: str) -> tuple[int, bytes]:
    from runtime.jail.confined import can_confine, run_confined  # most of the time the cache has the answer

    if not can_confine():
        return _free(path, option)
    answer = run_confined([str(path), option], ANSWER_TIMEOUT)
    return answer.returncode, answer.output


def _free(path: Path, option: str) -> tuple[int, bytes]:
    done = run_program([path, option], timeout=ANSWER_TIMEOUT, cwd="/", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    return done.returncode, done.stdout


def _modules(path: Path, version: str) -> Path | None:
    """A self-built kernel's own modules come before the packaged ones: version strings of builds are alike."""
    beside = Path(os.path.realpath(path)).parent
    for parent in (beside / "modules", beside / "lib/modules", PACKAGED_MODULES, HOST_MODULES):
        if parent is PACKAGED_MODULES and (beside / "modules.order").is_file() and (beside / ".config").is_file():
            return beside  # the tree that it was built in: `make modules_install` need not be run
        if (parent / version / "modules.dep").is_file():
            return parent / version
    return None


def other_versions(kernel: Kernel) -> list[str]:
    """The versions that there are modules for, beside the kernel or packaged: for an error's text."""
    beside = Path(os.path.realpath(kernel.path)).parent / "modules"
    found: set[str] = set()
    for parent in (beside, PACKAGED_MODULES):
        if parent.is_dir():
            found.update(entry.name for entry in parent.iterdir() if (entry / "modules.dep").is_file())
    return sorted(found)


@memoized
def configuration(path: Path) -> dict[str, str]:
    """The options that the kernel was built with, as its `--showconfig` tells: `{"CONFIG_FUSE_FS": "m", …}`."""
    lines = (line.partition("=") for line in ask(path, "--showconfig").splitlines() if line.startswith("CONFIG_"))
    return {name: value for name, _, value in lines}
