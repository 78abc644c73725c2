"""Files and directories that are gone when what they are needed for ends, however it ends."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from umlfs.errors import UmlError

_WATCH: Final = """\
trap '' HUP INT QUIT TERM
read -r word && exit
chmod -R u+rwX -- "$1"
rm -rf -- "$1"
"""


@contextlib.contextmanager
def scratch_file(directory: Path) -> Iterator[int]:
    """The descriptor of a file without a name, gone with the block."""
    try:
        fd = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError:
        import tempfile

        fd, name = tempfile.mkstemp(prefix=".uml-", dir=directory)
        os.unlink(name)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def scratch_directory(parent: Path) -> Iterator[Path]:
    """A hidden directory in `parent`, removed with all in it when the block ends, or when this process is killed."""
    path = Path(os.path.abspath(parent)) / f".uml-{secrets.token_hex(8)}"
    command = ["/bin/sh", "-c", _WATCH, "sh", str(path)]
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, start_new_session=True, cwd="/", **streams) as watch:  # type: ignore[call-overload]
        try:
            path.mkdir(mode=0o700)
            yield path
        except OSError as error:
            raise UmlError(f"{error.filename or path.parent}: {error.strerror}", None) from error
        finally:
            remove_tree(path)
            with contextlib.suppress(BrokenPipeError):
                watch.communicate(b"done\n")


def remove_tree(path: Path) -> None:
    """Remove a directory and all in it, also where a mode is in the way. Nothing there is no error."""

    def again(function: Callable[[str], object], name: str, _: object) -> None:
        with contextlib.suppress(FileNotFoundError):
            parent = os.path.dirname(name)
            os.chmod(parent, stat.S_IMODE(os.stat(parent).st_mode) | stat.S_IRWXU)
            if os.path.isdir(name) and not os.path.islink(name):
                os.chmod(name, stat.S_IRWXU)
                shutil.rmtree(name, onerror=again)
            else:
                os.unlink(name)

    if os.path.lexists(path):
        shutil.rmtree(path, onerror=again)
