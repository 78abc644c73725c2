"""A kernel that is installed beside Debian's, for every caller."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from runtime.kernels.library import bind


@contextmanager
def another_kernel() -> Iterator[list[str]]:
    """The options that name the newest one that the user who runs the tests has; none where there is none. An ordinary
    user cannot go to root's home: all use a copy."""
    found = sorted(Path("~/.local/share/umlfs/kernels").expanduser().glob("*/linux"))
    if not found:
        yield []
        return
    with tempfile.TemporaryDirectory(prefix="uml-kernel-", dir="/tmp") as directory:
        copy = Path(directory, found[-1].parent.name)
        shutil.copytree(found[-1].parent, copy, symlinks=True, copy_function=_link)
        for place in (directory, copy):
            os.chmod(place, 0o755)
        if (copy / "lib").is_dir():
            _have_its_own(copy / "linux")
        yield ["--kernel", str(copy / "linux")]


def _have_its_own(kernel: Path) -> None:
    """It finds its libraries by a path, which is in root's home."""
    copied = kernel.with_name("copied")
    shutil.copy2(kernel, copied)
    copied.replace(kernel)
    bind(kernel, kernel.with_name("lib"))


def _link(source: str, target: str) -> None:
    with suppress(OSError):
        os.link(source, target, follow_symlinks=False)
        return
    shutil.copy2(source, target, follow_symlinks=False)
