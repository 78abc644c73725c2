"""Noticing that a kernel removes its umid directory, with a watch of the host and without."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import trio

from runtime.machine import ending


@pytest.mark.parametrize("has_watch", [True, False])
async def test_removal(has_watch: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise OSError(errno.EMFILE, "too many")

    if not has_watch:
        monkeypatch.setattr(ending, "Watch", refuse)
    heard = trio.Event()

    async def hear() -> None:
        await ending.umid_removed(watch, tmp_path / "umid")
        heard.set()

    with ending.watching() as watch:
        assert (watch is not None) is has_watch
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hear)
            (tmp_path / "other").mkdir()
            (tmp_path / "umid").mkdir()
            (tmp_path / "other").rmdir()
            await trio.sleep(2 * ending.LOOK_SECONDS)
            assert not heard.is_set()
            (tmp_path / "umid").rmdir()
            with trio.fail_after(30):
                await heard.wait()
