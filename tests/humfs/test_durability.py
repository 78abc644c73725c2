from __future__ import annotations

import threading
from pathlib import Path

import pytest
import trio
import trio.testing

from humfs import durability
from humfs.filesystem import open_filesystem
from humfs.store import Store
from umlfs.filesystem import ROOT, Caller


async def test_closing_waits_for_a_sync_that_nobody_asked_for(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would find the store closed under it."""
    begun, go_on = trio.Event(), threading.Event()
    sync_log = Store.sync_log

    def slow(store: Store) -> None:
        if not begun.is_set():
            trio.from_thread.run_sync(begun.set)
            go_on.wait()
        sync_log(store)

    monkeypatch.setattr(durability, "COMMIT_SECONDS", 0)
    filesystem = open_filesystem(root)
    monkeypatch.setattr(Store, "sync_log", slow)
    async with filesystem.running():
        await filesystem.mkdir(ROOT, b"directory", 0o755, 0, Caller())
        await begun.wait()
        closed = trio.Event()

        async def close() -> None:
            await filesystem.close()
            closed.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(close)
            await trio.testing.wait_all_tasks_blocked(0.2)
            waits = not closed.is_set()
            go_on.set()
    assert waits
    filesystem = open_filesystem(root)
    assert (await filesystem.lookup(ROOT, b"directory")).ino
    await filesystem.close()
