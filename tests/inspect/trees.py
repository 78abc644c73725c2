"""Trees of the host, as the tools see them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def make(top: Path, files: Mapping[str, str]) -> Path:
    """A directory with these files; a name that ends with a slash is a directory, `-> ` begins a link's target."""
    top.mkdir(exist_ok=True)
    for name, text in files.items():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            path.mkdir(exist_ok=True)
        elif text.startswith("-> "):
            os.symlink(text[3:], path)
        else:
            path.write_text(text)
    return top
