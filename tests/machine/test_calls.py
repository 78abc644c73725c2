"""Calls that cannot be meant say what to do instead."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from runtime import Machine, run


async def test_a_command_is_a_list_of_words() -> None:
    command: Any = "uname -a"
    with pytest.raises(TypeError, match=r"a list of words, not one string: \['uname', '-a'\]"):
        await run(command)


def test_another_event_loop() -> None:
    async def enter() -> None:
        async with Machine():
            pass

    with pytest.raises(RuntimeError, match=r"from asyncio, await asyncio\.to_thread"):
        asyncio.run(run(["true"]))
    with pytest.raises(RuntimeError, match=r"call trio\.run"):
        asyncio.run(enter())
