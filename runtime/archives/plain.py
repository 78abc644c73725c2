"""An archive of any kind as plain tar, in a file: itself, or put down once without a name."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from typing import BinaryIO, Final, cast

from humfs.tarball import plain
from runtime.archives.kinds import kind_of
from runtime.host.needs import find_program
from umlfs.errors import UmlError
from umlfs.host.programs import run_program

_CHUNK: Final = 1 << 20


def put_down(path: Path) -> BinaryIO:
    """The archive as plain tar, in a file without a name. UmlError; OSError."""
    file = tempfile.TemporaryFile(prefix="umlfs-")  # noqa: SIM115 - the caller's
    try:
        if kind_of(path) == "tar":
            with open(path, "rb") as stream, plain(stream) as contents:
                while data := contents.read(_CHUNK):
                    file.write(data)
        else:
            _by_libarchive(path, cast(BinaryIO, file))
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return cast(BinaryIO, file)


def _by_libarchive(path: Path, file: BinaryIO) -> None:
    program = find_program("bsdtar")
    words = [program, "--create", "--format=pax", "--file=-", f"@{os.path.abspath(path)}"]
    environment = {"PATH": os.defpath, "LC_ALL": "C.UTF-8"}
    done = run_program(words, stdout=file.fileno(), stderr=subprocess.PIPE, env=environment)
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip()
        raise UmlError(f"{path}: not all of it can be read", "make it again", details=lines)
