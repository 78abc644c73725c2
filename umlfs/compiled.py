"""Modules of ours that were compiled at installation, and do what a module in Python beside them does, sooner.

The one in Python is the reference. It serves where nothing was compiled (no compiler, another Python), and where
`UMLFS_PURE` is set and not empty.
"""

from __future__ import annotations

import importlib
import logging
import os
from types import ModuleType

log = logging.getLogger(__name__)


def extension(name: str, version: int) -> ModuleType | None:
    """The compiled module `name`, if it is there. One whose `VERSION` is another was left by another state of the
    sources: it is not used."""
    if os.environ.get("UMLFS_PURE"):
        return None
    try:
        module = importlib.import_module(name)
    except ImportError:
        return None
    if getattr(module, "VERSION", None) != version:
        log.info("%s is of another version: `./uml` compiles it anew once it installs", name)
        return None
    return module
