"""Which module files a guest needs, in the order of loading."""

from __future__ import annotations

import gzip
import lzma
import re
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from runtime.kernels.features import MODULES, features
from runtime.kernels.kernel import INSTALL, Kernel, other_versions
from umlfs.errors import UmlError

NEEDS_MAX: Final = 1000
"""Looks at the needs of a module's needs, and of theirs, that no module comes near."""
MODULE_MAX: Final = 64 << 20
"""No module comes near it: a compressed file that yields more is broken."""


class Module(NamedTuple):
    """A module that is a file of its own."""

    name: str
    path: Path
    needs: tuple[str, ...]
    """The names of all modules that it needs, as modules.dep orders them: each before what that one needs."""


def module_name(path: str) -> str:
    """The module's name from its path in modules.dep: `kernel/fs/fuse/virtio-fs.ko.xz` is `virtio_fs`."""
    return path.rpartition("/")[2].partition(".ko")[0].replace("-", "_")


def resolve(kernel: Kernel, names: Sequence[str]) -> list[Module]:
    """The modules `names` and all they depend on, each once, dependencies first: the order of loading.

    What is built into the kernel needs no file and is left out. UmlError for a module that the kernel does not
    have.
    """
    wanted = [name.replace("-", "_") for name in names]
    if kernel.modules is None:
        for name in wanted:
            _require_builtin(kernel, name)
        return []
    table = _dependencies(kernel.modules)
    found: dict[str, Module] = {}
    for name in wanted:
        if name in table:
            _add(name, kernel.modules, table, found)
        elif name not in _builtin(kernel.modules):
            raise UmlError(f"kernel {kernel.version} has no module {name}", "choose another kernel with --kernel FILE")
    return list(found.values())


def has_module(kernel: Kernel, name: str) -> bool:
    """Whether the kernel has it, as a file or built in."""
    try:
        resolve(kernel, [name])
    except UmlError:
        return False
    return True


def _require_builtin(kernel: Kernel, name: str) -> None:
    if features(kernel).options.get(MODULES.get(name, "")) == "y":
        return
    others = other_versions(kernel)
    there = f"there are some for {', '.join(others)}" if others else "there are none"
    raise UmlError(
        f"no modules for kernel {kernel.version} ({kernel.path}), which needs {name}: {there}",
        f"put them into {kernel.path.parent / 'modules' / kernel.version}, or {INSTALL}",
    )


def _builtin(directory: Path) -> set[str]:
    path = directory / "modules.builtin"
    return {module_name(line) for line in _lines(path)} if path.is_file() else set()


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8", "surrogateescape").splitlines()
    except OSError as error:
        raise UmlError(f"{path}: {error.strerror}", INSTALL) from error


def _dependencies(directory: Path) -> dict[str, str]:
    """The lines of modules.dep (thousands) by the names of the modules (of which a guest needs five)."""
    if (directory / "modules.dep").exists():
        return {module_name(line.partition(":")[0]): line for line in _lines(directory / "modules.dep")}
    return _of_build_tree(directory)


def _of_build_tree(directory: Path) -> dict[str, str]:
    """The lines that `make modules_install` would write for the tree that a kernel was built in."""
    paths = [f"{line.rpartition('.')[0]}.ko" for line in _lines(directory / "modules.order") if line]
    by_name = {module_name(path): path for path in paths if (directory / path).is_file()}
    direct = {name: _direct_needs(directory / path) for name, path in by_name.items()}
    return {
        name: f"{path}: {' '.join(by_name.get(each, f'{each}.ko') for each in _all_needs(name, direct))}"
        for name, path in by_name.items()
    }


def _direct_needs(path: Path) -> list[str]:
    """What a module says that it needs, in its section .modinfo."""
    found = re.search(rb"\0depends=([\w,-]*)\0", b"\0" + path.read_bytes())
    return [name.replace("-", "_") for name in found[1].decode().split(",") if name] if found else []


def _all_needs(name: str, direct: Mapping[str, Sequence[str]]) -> list[str]:
    """All that a module needs, each before what that one needs."""
    order: list[str] = []
    waiting = list(direct.get(name, ()))
    for _ in range(NEEDS_MAX):
        if not waiting:
            return order
        each = waiting.pop(0)
        # Whoever is needed once more, and later, comes later.
        order = [other for other in order if other != each] + [each]
        waiting += direct.get(each, ())
    raise UmlError(f"module {name}: the modules that it needs need each other", "build them anew")


def _add(name: str, directory: Path, table: dict[str, str], found: dict[str, Module]) -> None:
    module = _parse(directory, table[name])
    for needed in reversed(module.needs):
        if needed not in table:
            raise UmlError(f"module {name} needs {needed}, which is not there", "run `depmod` for this kernel")
        found.setdefault(needed, _parse(directory, table[needed]))
    found.setdefault(name, module)


def _parse(directory: Path, line: str) -> Module:
    path, _, needs = line.partition(":")
    return Module(module_name(path), directory / path, tuple(map(module_name, needs.split())))


def check_version(path: Path, content: bytes, version: str) -> None:
    """UmlError unless the module is one of the kernel `version`, which would refuse it."""
    found = re.search(rb"\0vermagic=([^ \0]+)", content)
    made_for = found[1].decode(errors="replace") if found else version
    if made_for != version:
        raise UmlError(
            f"{path}: a module of Linux {made_for}, and the kernel is {version}",
            "build the modules that belong to it (`make ARCH=um modules`), or name another kernel with --kernel FILE",
        )


def read_module(path: Path) -> bytes:
    """The module's contents, decompressed; UmlError if it cannot be read."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UmlError(f"{path}: cannot read the module: {error.strerror}", INSTALL) from error
    try:
        content = _decompress(path, raw)
    except (EOFError, OSError, lzma.LZMAError, zlib.error) as error:
        raise UmlError(f"{path}: the module is damaged: {error}", INSTALL) from error
    if not content.startswith(b"\x7fELF") or len(content) > MODULE_MAX:
        raise UmlError(f"{path}: the file is not a kernel module", INSTALL)
    return content


def _decompress(path: Path, raw: bytes) -> bytes:
    if path.suffix == ".gz":
        return gzip.decompress(raw)
    if path.suffix == ".xz":
        return lzma.decompress(raw)
    if path.suffix == ".zst":
        raise UmlError(f"{path}: modules compressed by zstd cannot be used", f"run `unzstd {path}` and `depmod`")
    return raw
