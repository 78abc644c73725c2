"""Bringing a cluster up: its network, its machines, and their joining."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import trio

from runtime.cluster import joining, orphans, state
from runtime.cluster.checking import Ready, check, source_of
from runtime.cluster.description import Cluster, ClusterNode
from runtime.cluster.orphans import WORD
from runtime.cluster.state import State
from runtime.machine.script import BUSYBOX
from runtime.machines import client
from runtime.machines import directory as machines
from runtime.machines.capture import capture
from runtime.machines.starting import start
from runtime.network import lab as labs
from umlfs.errors import UmlError
from umlfs.ubd import Spec

AT_ONCE: Final = 4
"""Machines that boot at the same time."""
JOIN_SECONDS: Final = 300.0
"""How long a node may take to join: the others' heartbeats are waited for, and journals replayed."""
FIRST_ADDRESS: Final = labs.FIRST
TREES: Final = frozenset({"hostfs", "humfs"})
_recording: Final = threading.Lock()
Say = Callable[[str], None]
"""Is told of what has been done, a line each."""


def bring_up(cluster: Cluster, say: Say) -> State:
    """Start the machines of the cluster that do not run, and have them join. UmlError, UsageError before anything is
    started, for what can be told then. A failure later leaves what is there to `taking_down`."""
    ready = check(cluster)
    with state.locked(cluster.name):
        lab = _network(cluster)
        found = state.record(cluster)
        work = _Work(cluster, ready, found, lab, say)
        try:
            trio.run(work.run)
        except BaseException:
            say(f"'uml cluster down {cluster.name}' ends what was started")
            raise
    return found


def _network(cluster: Cluster) -> labs.Lab:
    """The cluster's network, which leads nowhere. UmlError if there is one of that name which is not the cluster's."""
    known = state.read(cluster.name) is not None
    if known:
        try:
            return labs.find(cluster.name)[1]
        except UmlError:
            pass  # somebody removed it
    state.record(cluster)
    try:
        return labs.create(cluster.name, None, internal=True, isolated=False, mtu=9000)
    except BaseException:
        if not known:
            (state.directory_of(cluster.name) / state.RECORD).unlink()
        raise


@dataclass(slots=True)
class _Work:
    cluster: Cluster
    ready: Ready
    state: State
    lab: labs.Lab
    say: Say

    async def run(self) -> None:
        """Start what does not run; have all join, at once: each waits for the heartbeats of the others."""
        missing = [node for node in self.cluster.nodes if not _runs(node)]
        await _each(missing, self._start, trio.CapacityLimiter(AT_ONCE))
        if self.cluster.shared and self.ready.volumes:
            await _each(self.cluster.nodes, self._join, trio.CapacityLimiter(len(self.cluster.nodes)))

    async def _start(self, node: ClusterNode) -> None:
        machine = await trio.to_thread.run_sync(self._description, node)
        await start(machine, self.cluster.directory)
        await trio.to_thread.run_sync(self._record, node)
        self.say(f"{node.umid}: runs")

    def _record(self, node: ClusterNode) -> None:
        """Note where its sockets are: nobody else knows that when all who are concerned were killed."""
        with _recording:
            state.record(self.cluster, orphans.directories(node.umid))

    def _description(self, node: ClusterNode) -> dict[str, Any]:
        """What the machine of a node is: as the file has it, and what the cluster adds."""
        it, disks = node.machine, self.cluster.disks()
        shared = [Spec(unit, str(self.cluster.image(disk)), shared=True) for unit, disk in disks.items()]
        modules = self.ready.kernels[node.number].modules
        mounts = [f"{joining.MODULES_PLACE}=hostfs:{modules}:ro"] if modules and self.ready.modules[node.number] else []
        root, throwaway = self._root(node)
        described = replace(
            it,
            umid=node.umid,
            root=root,
            throwaway=throwaway,
            networks=(f"{self.state.network}:ip={self._address(node)}", *it.networks),
            ubds=(*it.ubds, *map(str, shared)),
            mounts=(*it.mounts, *mounts),
            arguments=(*it.arguments, f"{WORD}{node.umid}"),
            reboot=False,
            common_log=str(self.state.log),
        )
        return {key: value for key, value in asdict(described).items() if value is not None}

    def _root(self, node: ClusterNode) -> tuple[str, bool]:
        """The source of its root, and whether changes go to memory: those to an image go to a COW file over it."""
        if not node.machine.root:
            return "", False
        source = source_of(node.machine.root, self.cluster.directory)
        if source.scheme in TREES:
            return source.full, True
        backing = source.argument if source.scheme == "raw" else source.full
        return f"cow:{self.state.directory / node.umid}.cow,{backing}", False

    def _address(self, node: ClusterNode) -> str:
        return self.lab.address(FIRST_ADDRESS + node.number)

    async def _join(self, node: ClusterNode) -> None:
        modules = self.ready.kernels[node.number].modules
        script = joining.script(
            self.cluster,
            node,
            [self._address(other) for other in self.cluster.nodes],
            self.ready.volumes,
            self.ready.modules[node.number],
            modules or Path("/"),
        )
        outcome = await capture(client.find(node.umid), [BUSYBOX, "sh", "-c", script], JOIN_SECONDS)
        if outcome.status:
            said = outcome.output.strip().splitlines()
            raise UmlError(
                f"{node.umid}: did not join: {said[-1] if said else f'exit status {outcome.status}'}",
                f"'uml logs {node.umid}' may say why",
            )
        self.say(f"{node.umid}: joined")


def _runs(node: ClusterNode) -> bool:
    return machines.runs(machines.machines_directory() / node.umid)


async def _each(
    nodes: list[ClusterNode] | tuple[ClusterNode, ...], work: Callable[[ClusterNode], Awaitable[None]], limit: Any
) -> None:
    """Do `work` for all nodes at once, as far as `limit` allows. The first failure is raised when all are done."""
    failures: list[UmlError] = []

    async def one(node: ClusterNode) -> None:
        async with limit:
            try:
                await work(node)
            except UmlError as error:
                failures.append(error)

    async with trio.open_nursery() as nursery:
        for node in nodes:
            nursery.start_soon(one, node)
    if failures:
        raise failures[0]
