"""The programs that do the work: where they are, and their words when they fail."""

from __future__ import annotations

import os
import shutil

from umlfs.errors import UmlError


def find_program(name: str, package: str) -> str:
    """The path of a program, also of one that is not in an ordinary user's PATH. UmlError naming its package."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if found is None:
        raise UmlError(f"the program {name} is not there", f"install it with `apt install {package}`")
    return found
