"""Adverse circumstances, made."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from typing import Any

import pytest

import hostfs.devices
import hostfs.entries
import hostfs.resolver
from hostfs.descriptors import Descriptors
from umlfs.host import syscalls
from umlfs.host.syscalls import How, failure


@pytest.fixture
def cold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is in the host's caches: every name and every byte has to be waited for."""
    preadv = os.preadv

    def open_cached(directory: int, name: bytes, how: How) -> int:
        raise failure(errno.EAGAIN)

    def read(fd: int, buffers: Sequence[memoryview], offset: int, flags: int = 0) -> int:
        if not flags:
            return preadv(fd, buffers, offset)
        # A first page may be there.
        first = [buffer[:4096] for buffer in buffers[:1]] if offset % 8192 == 0 else []
        if not first:
            raise failure(errno.EAGAIN)
        return preadv(fd, first, offset)

    monkeypatch.setattr(hostfs.resolver, "open_cached", open_cached)
    monkeypatch.setattr(hostfs.entries, "CACHED_SECONDS", -1.0)
    monkeypatch.setattr(hostfs.devices, "is_memory", lambda _: False)
    monkeypatch.setattr(os, "preadv", read)


@pytest.fixture
def scarce(monkeypatch: pytest.MonkeyPatch) -> None:
    """Very few descriptors are held, and every third open finds none left in the process."""
    caches: list[Descriptors] = []
    opens = 0

    class Watched(Descriptors):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            caches.append(self)

    def sometimes_none(directory: int, name: bytes, how: How) -> int:
        nonlocal opens
        opens += 1
        if opens % 3 == 0 and len(caches[-1]._held) > 2:
            raise failure(errno.EMFILE)
        return syscalls.open_cached(directory, name, how)

    monkeypatch.setattr(hostfs.resolver, "limits", lambda *_: (6, 300, 300))
    monkeypatch.setattr(hostfs.resolver, "Descriptors", Watched)
    monkeypatch.setattr(hostfs.resolver, "open_cached", sometimes_none)
