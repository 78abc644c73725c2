"""The modules that are compiled at installation: tests of them fail where they were not."""

from __future__ import annotations

from types import ModuleType

from umlfs.compiled import extension


def compiled(name: str, version: int) -> ModuleType:
    """The compiled module."""
    found = extension(name, version)
    assert found is not None, f"{name} is not compiled: `./uml` does it when it installs, with a compiler"
    return found
