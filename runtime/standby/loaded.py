"""Whether what was imported is still what an import would find."""

from __future__ import annotations

import os
import sys

Files = dict[str, tuple[int, int, int] | None]
"""Inode, size and time of change by path; None for what is not there."""


def loaded() -> Files:
    """The files of all modules imported so far, and the directories where plugins are found."""
    modules = {str(each) for module in list(sys.modules.values()) if (each := getattr(module, "__file__", None))}
    return {path: _state(path) for path in modules.union(sys.path)}


def unchanged(files: Files) -> bool:
    """Whether all of them are as they were."""
    return all(_state(path) == state for path, state in files.items())


def _state(path: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
