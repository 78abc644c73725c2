"""Small static C programs of ours, compiled once for each version of their source and kept in the cache."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from runtime.host import cache
from umlfs.errors import UmlError
from umlfs.host.programs import run_program

FLAGS: Final = ("-std=gnu11", "-O2", "-Wall", "-static", "-s")
PROGRAM_MAX: Final = 8 << 20
KEPT: Final = 3
INSTALL: Final = "install one with `apt install gcc libc6-dev`"
_ELF: Final = b"\x7fELF"
_SEAL: Final = hashlib.sha256().digest_size


def compiled(name: str, sources: Sequence[Path], what: str) -> bytes:
    """The executable made of `sources`; `what` is what an error calls it. UmlError if it cannot be compiled.

    Blocks, half a second the first time.
    """
    key = _key(name, sources)
    found = cache.load(key, PROGRAM_MAX)
    if found is not None and _is_whole(found):
        return found[:-_SEAL]
    content = _compile(sources, what)
    if cache.store(key, content + _seal_of(content)) is not None:
        cache.prune(f"{name}-*", KEPT)
    return content


def _key(name: str, sources: Sequence[Path]) -> str:
    source = b"".join(path.read_bytes() for path in sources)
    return f"{name}-{hashlib.sha256(source + repr(FLAGS).encode()).hexdigest()[:24]}"


def _seal_of(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def _is_whole(stored: bytes) -> bool:
    """Whether the bytes are those that were stored: a power cut may leave a file empty."""
    return stored.startswith(_ELF) and _seal_of(stored[:-_SEAL]) == stored[-_SEAL:]


def _compile(sources: Sequence[Path], what: str) -> bytes:
    compiler = os.environ.get("CC") or next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        raise UmlError(f"no C compiler on this host, to make {what}", INSTALL)
    with tempfile.TemporaryDirectory(prefix="umlfs-program-") as directory:
        output = Path(directory, "program")
        done = run_program(
            [compiler, *FLAGS, "-o", str(output), *map(str, sources)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip()
            raise UmlError(f"{compiler} cannot make {what}", INSTALL, details=said)
        return output.read_bytes()
