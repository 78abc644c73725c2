"""Commands in all nodes of a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import trio

from runtime.cluster.state import State
from runtime.machines import client
from runtime.machines.capture import capture
from umlfs.errors import UmlError, UsageError


@dataclass(frozen=True, slots=True)
class Result:
    """What came of it in one node."""

    umid: str
    ok: bool
    text: str


def run_in_all(state: State, command: Sequence[str], seconds: float, numbers: Sequence[int] = ()) -> list[Result]:
    """Run a command in the nodes of those numbers, or in all, at once. `text` is its output, and why it could not be
    run. UsageError for a node that is not there."""
    for number in numbers:
        if not 1 <= number <= len(state.umids):
            raise UsageError(f"--node {number}: no such node", f"they are 1 to {len(state.umids)}")
    chosen = [umid for at, umid in enumerate(state.umids, 1) if not numbers or at in numbers]
    return trio.run(_run, chosen, command, seconds)


async def _run(umids: Sequence[str], command: Sequence[str], seconds: float) -> list[Result]:
    found: dict[str, Result] = {}

    async def one(umid: str) -> None:
        try:
            outcome = await capture(client.find(umid), command, seconds)
        except UmlError as error:
            found[umid] = Result(umid, False, str(error))
        else:
            cut = "\n(more was said)" if outcome.cut else ""
            found[umid] = Result(umid, outcome.status == 0, outcome.output + cut)

    async with trio.open_nursery() as nursery:
        for umid in umids:
            nursery.start_soon(one, umid)
    return [found[umid] for umid in umids]
