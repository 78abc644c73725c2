"""Roots that captive guests write to: one guest each, for two would destroy each other's files."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

from runtime.captive.mounts import Tree
from umlfs.errors import UmlError
from umlfs.sources import Source, as_source

_objects: set[int] = set()
"""Trees of this process that are written to, by their identities."""


@contextlib.contextmanager
def claimed(root: Tree) -> Iterator[None]:
    """Nobody else has `root` as one that is written to, within this host. UmlError if somebody has."""
    if not isinstance(root, Source | str):
        with _object(root):
            yield
        return
    source = as_source(root)
    with contextlib.ExitStack() as stack:
        if source.scheme == "hostfs":  # the others look after themselves
            stack.enter_context(_directory(source))
        yield


def _taken(name: str) -> UmlError:
    return UmlError(f"{name}: another captive guest writes to it", "end that, or leave out writable")


@contextlib.contextmanager
def _object(root: object) -> Iterator[None]:
    if id(root) in _objects:
        raise _taken(type(root).__name__)
    _objects.add(id(root))
    try:
        yield
    finally:
        _objects.remove(id(root))


@contextlib.contextmanager
def _directory(source: Source) -> Iterator[None]:
    number = os.open(source.argument or "/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _taken(str(source)) from None
        yield
    finally:
        os.close(number)
