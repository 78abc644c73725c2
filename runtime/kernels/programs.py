"""Programs of others that fetch, unpack, bind and build kernels: run to their end, with what they said."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from umlfs.errors import UmlError
from umlfs.host.programs import run_program


@dataclass(frozen=True, slots=True)
class Done:
    """A program that has ended."""

    returncode: int
    output: str
    errors: str


def run(
    command: Sequence[str | os.PathLike[str]],
    *,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> Done:
    """Run a program that reads nothing. UmlError if it cannot be started."""
    try:
        done = run_program(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, cwd=directory)
    except OSError as error:
        raise UmlError(f"{os.fspath(command[0])}: cannot be started: {error.strerror}") from error
    return Done(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))


def must(command: Sequence[str | os.PathLike[str]], what: str, way_out: str | None = None) -> str:
    """The output of a program. UmlError saying `what` did not work, and the program's last word, if it fails."""
    done = run(command)
    if done.returncode:
        lines = done.errors.strip().splitlines() or [f"{os.fspath(command[0])} failed"]
        raise UmlError(f"{what}: {lines[-1]}", way_out)
    return done.output
