"""Booting a machine that outlives its caller: `python -m runtime.machines.starting`, in a process of its own.

A machine in the background is a fork of a process that has no thread and no event loop; a server has both, and so
has who boots several at a time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import trio

from runtime.host import own
from runtime.machines import description
from runtime.machines.control_wire import raise_failure
from umlfs.errors import UmlError, sole

ANSWER_MAX: Final = 1 << 20


async def start(table: dict[str, Any], directory: Path | None = None) -> str:
    """Boot the machine that `table` describes (see `runtime.machines.description`), by default in the directory of this
    process; its umid when it runs. UmlError."""
    done = await trio.run_process(
        own.module("runtime.machines.starting"),
        stdin=json.dumps(table).encode(),
        capture_stdout=True,
        stderr=subprocess.DEVNULL,
        check=False,
        start_new_session=True,
        cwd=directory,
    )
    try:
        answer = json.loads(done.stdout[:ANSWER_MAX])
    except ValueError:
        raise UmlError("the machine could not be started", "'uml boot' says why") from None
    raise_failure(answer)
    return str(answer["umid"])


def main() -> None:
    """Boot what standard input describes, and answer on standard output."""
    from runtime.machines.start import in_background
    from runtime.machines.supervisor import Supervisor

    answer: dict[str, object]
    try:
        supervisor = Supervisor(description.decode(json.load(sys.stdin)), on_terminal=False)
        in_background(supervisor)
        answer = {"umid": supervisor.description.umid}
    except Exception as error:
        cause = sole(error)
        way_out = cause.way_out if isinstance(cause, UmlError) else "'uml boot' may tell more"
        answer = {"error": cause.what if isinstance(cause, UmlError) else str(cause), "way_out": way_out}
    os.write(1, json.dumps(answer).encode())


if __name__ == "__main__":
    main()
