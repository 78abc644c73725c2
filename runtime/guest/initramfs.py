"""The initramfs of a guest: static busybox, the modules needed and the script that starts it all.

Archives are kept in the cache directory under the hash of what goes into them, so that the second boot finds
its own ready. The kernel copies the archive into its memory and unpacks it from there: it is not compressed,
for that would only cost time.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from runtime.guest import cpio
from runtime.host import cache
from runtime.kernels import modules
from runtime.kernels.elf import strip_debugging
from runtime.kernels.kernel import Kernel, identity
from runtime.kernels.modules import Module
from umlfs.errors import UmlError

LAYOUT: Final = 3
"""Part of the archives' key: to be raised when the same input gives another archive."""

KEPT: Final = 12
"""Archives kept in the cache: some kinds of guest for some kernels, 2 to 3 MiB each."""

INSTALL_BUSYBOX: Final = "install it with `apt install busybox-static`, or name one in UML_BUSYBOX"

LATER: Final = "run/umlfs/later"
"""Where in an archive, and then in the guest, modules are that nothing needs at boot."""

_DIRECTORIES: Final = (b"dev", b"proc", b"sys")
_ELF_HEADER: Final = struct.Struct("<4sBB10xHHIQQQIHHH")
_PT_INTERP: Final = 3
_X86_64: Final = 62


def find_busybox() -> Path:
    """A static busybox: `$UML_BUSYBOX`, else that in /bin, /usr/bin or PATH. UmlError if there is none."""
    named = os.environ.get("UML_BUSYBOX")
    if named:
        complaint = _complaint(Path(named))
        if complaint:
            raise UmlError(f"{named}: {complaint}", INSTALL_BUSYBOX)
        return Path(named).absolute()
    found = [Path("/bin/busybox"), Path("/usr/bin/busybox"), Path(shutil.which("busybox") or "/bin/busybox")]
    complaints = {path: _complaint(path) for path in found}
    for path, complaint in complaints.items():
        if complaint is None:
            return path
    raise UmlError("no static busybox on this host", INSTALL_BUSYBOX)


def _complaint(path: Path) -> str | None:
    """What makes `path` unfit as the guest's busybox, or None: it must be a program that needs no libraries."""
    try:
        with open(path, "rb") as file:
            head = file.read(4096)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if len(head) < _ELF_HEADER.size or not head.startswith(b"\x7fELF\x02\x01"):
        return "not a program for this machine"
    _, _, _, _, machine, _, _, offset, _, _, _, size, count = _ELF_HEADER.unpack_from(head)
    if machine != _X86_64:
        return "not a program for this machine"
    kinds = (head[offset + index * size :][:4] for index in range(count))
    return "not a static busybox" if struct.pack("<I", _PT_INTERP) in kinds else None


def given(name: str) -> Path:
    """The initrd that somebody else made, as an absolute path. UmlError if it cannot be read."""
    path = Path(name).absolute()
    try:
        with path.open("rb"):
            return path
    except OSError as error:
        raise UmlError(f"initrd={name}: {error.strerror}", "name a file that you may read") from None


def build(
    kernel: Kernel,
    names: Sequence[str],
    init: bytes,
    busybox: Path | None,
    extra: Mapping[str, bytes] | None = None,
    *,
    later: Sequence[str] = (),
    scratch: Path,
) -> Path:
    """The archive holding `busybox` (unless None), `init` as /init, and the modules `names` with all that they need.

    `extra` are further files by their path; those that start with `#!` or are programs become executable.
    /dev, /proc and /sys are there, empty. `load_snippet` gives the shell words that load the modules. The modules
    `later`, with what they need besides, are in the directory `LATER`: the order of their names is that of loading.

    The archive lies in the cache, complete and checked; where that cannot be (no directory that only this user
    writes, a full disk, a path that the kernel's command line cannot hold) in `scratch`, and goes with it.
    UmlError for a module that the kernel does not have or that cannot be read, OSError if `scratch` is full.
    """
    needed = modules.resolve(kernel, names)
    kept = [module for module in modules.resolve(kernel, [*names, *later]) if module not in needed]
    key = _key(kernel.version, needed, kept, init, busybox, extra or {})
    found = _cached(key)
    if found is not None:
        return found
    content = _archive(kernel, needed, kept, init, busybox, extra or {})
    name = f"initramfs-{key}-{zlib.crc32(content):08x}.cpio"
    stored = None if _unspeakable(cache.directory()) else cache.store(name, content)
    if stored is None:
        return cache.write_atomically(scratch / "initramfs.cpio", content)
    cache.prune("initramfs-*.cpio", KEPT)
    return stored


def load_snippet(kernel: Kernel, names: Sequence[str]) -> str:
    """The words of a shell script that load the modules `names` from an archive of `build`, in their order.

    /proc must be mounted. One process loads all: a fork and exec of busybox costs a guest 10 ms, loading a
    module less than 2. Nothing to load gives an empty text; a failure is the status of the words.
    """
    needed = [module.name for module in modules.resolve(kernel, names)]
    return f"/bin/busybox modprobe -a {' '.join(needed)}" if needed else ""


def module_paths(kernel: Kernel, names: Sequence[str]) -> list[str]:
    """Where in an archive of `build` the modules `names` and all they need lie, in the order of loading."""
    return [f"/{_place(kernel)}/{module.name}.ko" for module in modules.resolve(kernel, names)]


def _place(kernel: Kernel) -> str:
    return f"lib/modules/{kernel.version}"


def _key(
    version: str,
    needed: Sequence[Module],
    kept: Sequence[Module],
    init: bytes,
    busybox: Path | None,
    extra: Mapping[str, bytes],
) -> str:
    """What the archive's content depends on: the very files (`identity`), the bytes given, and the kernel's version
    where there are modules."""
    digest = hashlib.sha256(f"{LAYOUT}\0{version * bool(needed or kept)}\0{busybox and identity(busybox)}".encode())
    for module in needed:
        digest.update(f"\0{module.name}\0{identity(module.path)}\0{module.needs}".encode())
    for module in kept:
        digest.update(f"\0{LATER}\0{module.name}\0{identity(module.path)}".encode())
    for name, content in sorted({"init": init, **extra}.items()):
        digest.update(f"\0{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:24]


def _unspeakable(path: Path | None) -> bool:
    return path is None or any(character.isspace() for character in str(path))


def _cached(key: str) -> Path | None:
    """The archive of that key in the cache, unless its bytes are not those that were stored."""
    root = cache.directory()
    if root is None or _unspeakable(root):
        return None
    for path in root.glob(f"initramfs-{key}-*.cpio"):
        fd = cache.open_ours(path)
        if fd is None:
            continue
        with open(fd, "rb", buffering=0) as file:
            if path.stem.endswith(f"-{zlib.crc32(file.read()):08x}"):
                os.utime(file.fileno())  # What was used last is pruned last.
                return path
        path.unlink(missing_ok=True)
    return None


def _archive(
    kernel: Kernel,
    needed: Sequence[Module],
    kept: Sequence[Module],
    init: bytes,
    busybox: Path | None,
    extra: Mapping[str, bytes],
) -> bytes:
    entries = [cpio.directory(name) for name in _DIRECTORIES]
    if busybox is not None:
        entries.append(cpio.file(b"bin/busybox", _program(busybox), 0o755))
    entries.append(cpio.file(b"init", init, 0o755))
    place = _place(kernel)
    entries += [_file(f"{place}/{each.name}.ko", each, kernel) for each in needed]
    entries += [_file(f"{LATER}/{number:02}.{each.name}.ko", each, kernel) for number, each in enumerate(kept)]
    entries.append(cpio.file(f"{place}/modules.dep".encode(), _dependencies(needed)))
    for name, content in extra.items():
        runs = content.startswith((b"#!", b"\x7fELF"))
        entries.append(cpio.file(os.fsencode(name.lstrip("/")), content, 0o755 if runs else 0o644))
    return cpio.archive(entries)


def _file(name: str, module: Module, kernel: Kernel) -> cpio.CpioEntry:
    content = modules.read_module(module.path)
    modules.check_version(module.path, content, kernel.version)
    return cpio.file(name.encode(), strip_debugging(content))


def _program(busybox: Path) -> bytes:
    try:
        return busybox.read_bytes()
    except OSError as error:
        raise UmlError(f"{busybox}: cannot be read: {error.strerror}", INSTALL_BUSYBOX) from error


def _dependencies(needed: Sequence[Module]) -> bytes:
    """The modules.dep of the archive, whose modules all lie in one directory."""
    lines = (f"{each.name}.ko: {' '.join(f'{name}.ko' for name in each.needs)}".rstrip() for each in needed)
    return "".join(f"{line}\n" for line in lines).encode()
