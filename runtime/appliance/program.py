"""The filer, compiled: once for each version of its source, and kept in the cache."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from runtime.host import cache
from umlfs.errors import UmlError
from umlfs.host.programs import run_program

SOURCES: Final = [Path(__file__).with_name(name) for name in ("filer.c", "packer.c")]
FLAGS: Final = ("-std=gnu11", "-O2", "-Wall", "-static", "-s")
PROGRAM_MAX: Final = 8 << 20
KEPT: Final = 3
INSTALL: Final = "install one with `apt install gcc libc6-dev`"
_ELF: Final = b"\x7fELF"


def program() -> bytes:
    """The filer, an executable. UmlError if it cannot be compiled. Blocks, half a second the first time."""
    source = b"".join(path.read_bytes() for path in SOURCES)
    digest = hashlib.sha256(source + repr(FLAGS).encode()).hexdigest()[:24]
    name = f"filer-{digest}"
    found = cache.load(name, PROGRAM_MAX)
    if found is not None and _is_whole(found):
        return found.removesuffix(_seal(found))
    content = _compile()
    if cache.store(name, content + _seal_of(content)) is not None:
        cache.prune("filer-*", KEPT)
    return content


def _seal_of(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def _seal(stored: bytes) -> bytes:
    return stored[-hashlib.sha256().digest_size :]


def _is_whole(stored: bytes) -> bool:
    """Whether the bytes are those that were stored: a power cut may leave a file empty."""
    seal = _seal(stored)
    return stored.startswith(_ELF) and _seal_of(stored.removesuffix(seal)) == seal


def _compile() -> bytes:
    compiler = os.environ.get("CC") or next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        raise UmlError("no C compiler on this host, to make the appliance's program", INSTALL)
    with tempfile.TemporaryDirectory(prefix="umlfs-filer-") as directory:
        output = Path(directory, "filer")
        done = run_program(
            [compiler, *FLAGS, "-o", str(output), *map(str, SOURCES)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip()
            raise UmlError(f"{compiler} cannot make the appliance's program", INSTALL, details=said)
        return output.read_bytes()
