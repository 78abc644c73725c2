"""Files of the host in the memory of guests: `iomem=NAME,FILE`, which a guest's programs have as /dev/mmapper.

The kernel takes one page too many of a file whose size is a multiple of a page: who touches that page ends the guest.
So such a file gets a byte more before a kernel sees it.
"""

from __future__ import annotations

import mmap
import os
import re
import stat
from collections.abc import Iterable, Sequence
from typing import Final

from runtime.kernels.features import features
from runtime.kernels.kernel import find_kernel
from umlfs.errors import UmlError, UsageError

WORD: Final = "iomem="
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,63}\Z")


def kernel_words(texts: Sequence[str], kernel: str | None) -> list[str]:
    """The kernel's words for `NAME=FILE` each. UsageError for what is not of that form, a name given twice, or a file
    that is not there; UmlError if the kernel of that name knows nothing of it."""
    if not texts:
        return []
    found = find_kernel(kernel)
    if not features(found).knows("iomem"):
        raise UmlError(
            f"--iomem {texts[0]}: Linux {found.version} has no iomem=", "choose another kernel with --kernel"
        )
    parsed = [_parse(text) for text in texts]
    names = [name for name, _ in parsed]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"--iomem: {twice} is there twice", "a name has one file")
    return [f"{WORD}{name},{path}" for name, path in parsed]


def _parse(text: str) -> tuple[str, str]:
    name, equals, file = text.partition("=")
    if not equals or not _NAME.match(name) or not file:
        raise UsageError(f"--iomem {text}: not of the form NAME=FILE", "such as --iomem mmapper=ring")
    path = os.path.abspath(file)
    if any(c == "," or c.isspace() or not c.isprintable() for c in path):
        raise UsageError(f"--iomem {text}: the kernel cannot be given a name with ',' or a space", "rename the file")
    if not os.path.isfile(path):
        raise UsageError(
            f"--iomem {text}: no such file", f"make it, as large as guests are to see it: truncate -s 1M {file}"
        )
    return name, path


def make_ready(words: Iterable[str]) -> None:
    """Have no file that the kernel's `words` name be a multiple of a page. UmlError if one cannot be written."""
    for word in words:
        _, comma, path = word.partition(",")
        if word.startswith(WORD) and comma:
            _grow(path)


def _grow(path: str) -> None:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise UmlError(f"iomem={path}: {error.strerror}", "name a file that you may write") from error
    try:
        status = os.fstat(fd)
        if stat.S_ISREG(status.st_mode) and status.st_size % mmap.PAGESIZE == 0:
            # Not by truncating: who else makes it ready at this moment may have written to it already.
            os.posix_fallocate(fd, status.st_size, 1)
    except OSError as error:
        raise UmlError(f"iomem={path}: {error.strerror}", "make room on the host") from error
    finally:
        os.close(fd)
