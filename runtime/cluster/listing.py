"""The nodes of clusters, and how they are."""

from __future__ import annotations

from dataclasses import dataclass
from time import time

import trio

from runtime.cluster import state
from runtime.machines import directory as machines
from runtime.machines import ended
from runtime.machines.listing import Listed, listing


@dataclass(frozen=True, slots=True)
class NodeState:
    """A node of a cluster that is up."""

    cluster: str
    umid: str
    state: str
    """That of its machine, or how it ended."""
    memory: str = ""
    """What it takes of the host's, and what it has."""
    last_words: str = ""
    """Of one that has ended: the last line of its log."""


def nodes(name: str | None = None) -> list[NodeState]:
    """Those of the cluster `name`, or of all. UmlError if it is not up."""
    names = [name] if name else sorted(path.parent.name for path in state.home().glob(f"*/{state.RECORD}"))
    running = {each.umid: each for each in trio.run(listing)}
    gone = {each.umid: each for each in ended.all_ended(machines.machines_directory())}
    return [_node(each, umid, running.get(umid), gone.get(umid)) for each in names for umid in state.found(each).umids]


def _node(cluster: str, umid: str, runs: Listed | None, gone: ended.Ended | None) -> NodeState:
    if runs is not None:
        return NodeState(cluster, umid, runs.state, f"{runs.used >> 20}M/{runs.memory >> 20}M")
    if gone is not None:
        return NodeState(cluster, umid, ended.shown(gone, time()), last_words=gone.last_words)
    return NodeState(cluster, umid, "not started")
