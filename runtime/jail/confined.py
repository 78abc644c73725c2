"""A program that is asked something, in a jail: a kernel its version, or none at all what the host's jails are like."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from runtime.jail.grants import Grants
from runtime.jail.launch import Launch, launcher
from runtime.jail.layers import Layers, Mode
from runtime.process.keeper import Keeper
from umlfs.errors import UmlError

MEMORY: Final = 32 << 20
"""Bytes that such a program may take."""
OUTPUT_MAX: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of it."""

    returncode: int
    """Its exit status; -N after signal N."""
    output: bytes
    """What it wrote, errors too."""
    layers: Layers


def run_confined(command: Sequence[str], timeout: float, *, group: bool = False) -> Answer:
    """Run the command, whose first word is an absolute path, to its end: it is given nothing but itself, and with
    `group` a control group of its own. Blocks.

    UmlError if it cannot be started; subprocess.TimeoutExpired, and it is ended, after `timeout` seconds.
    """
    with contextlib.ExitStack() as stack:
        keeper = stack.enter_context(Keeper(memory=Path("/tmp")))
        output = stack.enter_context(tempfile.TemporaryFile())
        assert keeper.memory is not None
        launch = Launch(
            Mode.AUTO,
            Path(command[0]),
            "",
            directory=keeper.directory,
            memory=MEMORY,
            memory_directory=keeper.memory,
            memory_on_disk=False,
            grants=Grants(),
            group=keeper.directory.name if group else "",
        )
        if launch.group is not None:
            stack.callback(launch.group.remove)
            keeper.note_group(launch.group.path)
        stack.callback(keeper.close)
        with launch:
            launch.prepare()
            process = keeper.launch(launch, command, output=output, env={"PATH": os.defpath})
        os.close(launch.directory)
        status = process.wait(timeout)
        output.seek(0)
        return Answer(status, output.read(OUTPUT_MAX), launch.layers)


def can_confine() -> bool:
    """Whether there is a launcher at all, or a compiler to make it."""
    try:
        os.close(launcher())
    except UmlError:
        return False
    return True
