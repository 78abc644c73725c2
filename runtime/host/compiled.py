"""Small static C programs of ours, compiled once for each version of their source.

`./uml` compiles them when it installs, beside the Python packages: then no compiler is needed later, and any user has
them. A source that has changed since, or an installation by other means, is compiled at its first use and kept in the
user's cache.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
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
INSTALLED: Final = Path(sys.prefix, "lib", "umlfs")
"""Where `install` puts them, as trusted as the Python code beside it."""
_ELF: Final = b"\x7fELF"
_SEAL: Final = hashlib.sha256().digest_size


def compiled(name: str, sources: Sequence[Path], what: str) -> bytes:
    """The executable made of `sources`; `what` is what an error calls it. UmlError if it cannot be compiled.

    Blocks, half a second the first time.
    """
    key = _key(name, sources)
    try:
        return (INSTALLED / key).read_bytes()
    except OSError:
        return _from_cache(key, name, sources, what)


def installed(name: str, sources: Sequence[Path]) -> int | None:
    """A descriptor of what `install` has put there, which can be executed as /proc/self/fd/N; the caller closes it.
    None if it has not."""
    try:
        return os.open(INSTALLED / _key(name, sources), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None


def install(name: str, sources: Sequence[Path], what: str) -> None:
    """Compile it to where every user of this installation finds it, whole also after a power cut, in the place of older
    ones. UmlError if it cannot be compiled; OSError."""
    from umlfs.host.newfile import new_file  # only an installation needs it

    path = INSTALLED / _key(name, sources)
    content = _compile(sources, what)
    INSTALLED.mkdir(mode=0o755, parents=True, exist_ok=True)
    with new_file(str(path), 0o755, replace=True) as fd, open(fd, "wb", closefd=False) as file:
        file.write(content)
        os.fchmod(fd, 0o755)  # for all users, whatever the umask of who installs
    for other in INSTALLED.glob(f"{name}-*"):
        if other != path:
            other.unlink()


def _from_cache(key: str, name: str, sources: Sequence[Path], what: str) -> bytes:
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


def find_compiler() -> str | None:
    """The C compiler that `CC` names, or that there is."""
    return os.environ.get("CC") or next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)


def _compile(sources: Sequence[Path], what: str) -> bytes:
    compiler = find_compiler()
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
