"""The event loop that machines need."""

from __future__ import annotations

import trio


def require_trio() -> None:
    """RuntimeError with the way out, where the caller runs in another event loop than trio's."""
    if not trio.lowlevel.in_trio_run():
        raise RuntimeError(
            "machines run in trio's event loop: call trio.run(main);"
            " from asyncio, await asyncio.to_thread(trio.run, main)"
        )
