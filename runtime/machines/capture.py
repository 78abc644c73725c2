"""A command in a running machine, for programs: its output and exit status."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

from runtime.machines.client import answer_of, connected
from runtime.tty.caller import DEFAULT_PATH
from umlfs.errors import UmlError

OUTPUT_MAX: Final = 64 << 10
"""Bytes of output that are kept."""
PIECE: Final = 64 << 10


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it."""

    status: int
    output: str
    """Standard output and errors; the first 64 KiB."""
    cut: bool
    """There was more output."""


async def capture(path: Path, command: Sequence[str], seconds: float) -> Outcome:
    """Run a command in the machine with the directory `path`. UmlError; also after `seconds`, which end the command."""
    with trio.move_on_after(seconds):
        return await _capture(path, command)
    raise UmlError(f"{path.name}: the command did not end within {seconds:g} s", "it was ended")


async def _capture(path: Path, command: Sequence[str]) -> Outcome:
    reading, writing = os.pipe()
    null = os.open(os.devnull, os.O_RDONLY)
    async with trio.lowlevel.FdStream(reading) as output, connected(path) as channel:
        request = {"do": "exec", "command": list(command), "environment": {"PATH": DEFAULT_PATH}}
        try:
            await channel.send(request, [null, writing, writing])
        finally:
            os.close(writing)
            os.close(null)
        await answer_of(channel, path)
        kept, size = bytearray(), 0
        async for piece in output:
            size += len(piece)
            kept += piece[: OUTPUT_MAX - len(kept)]
        status = int((await answer_of(channel, path))["exit"])
    return Outcome(status, kept.decode(errors="replace"), size > len(kept))
