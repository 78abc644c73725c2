"""Serving sites by hypercorn."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, cast

import trio

from runtime.sites.application import Sites
from runtime.sites.config import SiteConfig
from umlfs.errors import UmlError, UsageError, sole

END_SECONDS: Final = 3.0
"""How long requests under way may take at the end."""
BIND: Final = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^:\s]*):\d{1,5}\Z")


async def serve(sites: Sequence[SiteConfig], bind: str, announce: Callable[[str], object]) -> None:
    """Serve until cancelled; `announce` gets the address once it can be reached. UmlError, UsageError."""
    import hypercorn.trio
    from hypercorn.config import Config

    if not BIND.match(bind):
        raise UsageError(f"--bind {bind}: not an address and a port", "write it like 127.0.0.1:8080")
    config = Config()
    config.bind = [bind]
    config.errorlog = logging.getLogger("hypercorn.error")
    config.errorlog.setLevel(logging.CRITICAL)
    config.include_server_header = False
    config.graceful_timeout = END_SECONDS
    application = Sites(sites)
    async with trio.open_nursery() as nursery, application.running():
        start = partial(
            hypercorn.trio.serve, cast(Any, application), config, mode="asgi", shutdown_trigger=trio.sleep_forever
        )
        try:
            addresses = await nursery.start(start)
        except (OSError, BaseExceptionGroup) as error:
            raise UmlError(f"{bind}: {sole(error)}", "choose another with --bind") from None
        announce(addresses[0])
        try:
            await trio.sleep_forever()
        finally:
            nursery.cancel_scope.cancel()
