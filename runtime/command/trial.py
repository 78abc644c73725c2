"""Whether a kernel runs guests here."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import trio

from runtime.command.throwaway import run
from runtime.machine.machine import Options
from umlfs.errors import UmlError

SECONDS: Final = 60.0
"""A hundred times what it takes."""


def try_kernel(kernel: Path) -> None:
    """Run a command in a guest of the kernel. UmlError if that fails. To be called where no event loop runs."""

    async def trial() -> int:
        return (await run(["true"], Options(kernel=str(kernel)), timeout=SECONDS)).returncode

    if status := trio.run(trial):
        raise UmlError(f"a guest's command ended with {status}")
