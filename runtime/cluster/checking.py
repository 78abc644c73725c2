"""What must hold before anything of a cluster is started."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil
import trio

from runtime.cluster import state
from runtime.cluster.description import Cluster, ClusterNode
from runtime.cluster.joining import MODULES
from runtime.cluster.ocfs2 import Volume, read_volume
from runtime.kernels.kernel import Kernel, find_kernel
from runtime.kernels.modules import Module, resolve
from runtime.machines import directory as machines
from umlfs.block import BlockDevice
from umlfs.errors import UmlError, UsageError
from umlfs.sources import Source, as_source
from umlfs.ubd import Spec
from umlfs.ubd.device import open_ubd

GUEST_MIN: Final = 48 << 20
"""Bytes that a node touches at least, besides what its kernel needs to keep account of its memory."""
ACCOUNTED: Final = 64
"""A page structure for this many bytes takes one."""
PANICS_FROM: Final = (7, 0)
"""Linux 7.2's o2net panics in UML as soon as two nodes connect ("Segfault with no mm"); 6.1 and 6.12 do not."""


@dataclass(frozen=True, slots=True)
class Ready:
    """What was found."""

    kernels: Mapping[int, Kernel]
    """By the nodes' numbers."""
    modules: Mapping[int, list[Module]]
    volumes: Mapping[int, Volume]
    """The filesystems by the units of their disks."""


def check(cluster: Cluster) -> Ready:
    """UmlError, UsageError for what would fail later."""
    _check_names(cluster)
    check_memory(cluster)
    _check_images(cluster)
    _check_roots(cluster)
    kernels = {node.number: find_kernel(node.machine.kernel or None) for node in cluster.nodes}
    modules = {node.number: _modules(cluster, node, kernels[node.number]) for node in cluster.nodes}
    return Ready(kernels, modules, trio.run(_volumes, cluster))


def _check_names(cluster: Cluster) -> None:
    known = state.read(cluster.name)
    if known is not None and known.file != str(cluster.file):
        raise UmlError(
            f"{cluster.name}: a cluster of that name is up, of {known.file}", f"'uml cluster down {cluster.name}' first"
        )
    ours = known.umids if known else ()
    for node in cluster.nodes:
        if node.umid not in ours and machines.runs(machines.machines_directory() / node.umid):
            raise UmlError(f"{node.umid}: a machine of that name is running", f"'uml halt {node.umid}' ends it")


def _check_roots(cluster: Cluster) -> None:
    for node in cluster.nodes:
        if node.machine.root:
            source_of(node.machine.root, cluster.directory)


def source_of(word: str, directory: Path) -> Source:
    """The source of a root, whose path is relative to `directory`. UsageError."""
    path = directory / word
    return as_source(str(path) if path.exists() else word)


def check_memory(cluster: Cluster) -> None:
    """Of those that are to be started: the others have theirs."""
    nodes = [node for node in cluster.nodes if not machines.runs(machines.machines_directory() / node.umid)]
    needed = sum(GUEST_MIN + node.machine.memory // ACCOUNTED for node in nodes)
    there = psutil.virtual_memory().available
    if needed > there:
        raise UmlError(
            f"{len(nodes)} nodes need {needed >> 20}M of memory, and this host has {there >> 20}M left",
            "have fewer nodes",
        )


def _modules(cluster: Cluster, node: ClusterNode, kernel: Kernel) -> list[Module]:
    if not any(disk.filesystem == "ocfs2" for disk in cluster.shared):
        return []
    version = tuple(map(int, re.findall(r"\d+", kernel.version)[:2]))
    if version >= PANICS_FROM:
        raise UmlError(
            f"{node.umid}: the ocfs2 of Linux {kernel.version} panics in UML when nodes connect",
            'choose one of Linux 6 for all nodes: kernel = "…" in [machine]',
        )
    try:
        return resolve(kernel, MODULES)
    except UmlError as error:
        raise UmlError(f"{node.umid}: {error.what}", "choose a kernel with ocfs2 for all nodes") from None


def _check_images(cluster: Cluster) -> None:
    for disk in cluster.shared:
        if not cluster.image(disk).exists():
            raise UsageError(f"{cluster.image(disk)}: no such image", "'uml cluster init' makes one")


async def _volumes(cluster: Cluster) -> dict[int, Volume]:
    found = {}
    for unit, disk in cluster.disks().items():
        image = cluster.image(disk)
        device = await _opened(unit, image)
        try:
            if disk.filesystem == "ocfs2":
                found[unit] = _fitting(await read_volume(device, str(image)), image, cluster)
        finally:
            await device.close()
    return found


async def _opened(unit: int, image: Path) -> BlockDevice:
    """As the nodes will open it: what they would be refused is refused here."""
    device = await open_ubd(Spec(unit, str(image), shared=True))
    if device.read_only:
        await device.close()
        raise UmlError(f"{image}: cannot be written", "nodes write their heartbeats to it")
    return device


def _fitting(volume: Volume, image: Path, cluster: Cluster) -> Volume:
    if volume.stack not in ("", "o2cb"):
        raise UmlError(f"{image}: its ocfs2 is for the cluster stack '{volume.stack}'", "tunefs.ocfs2 makes it o2cb's")
    if volume.slots < len(cluster.nodes):
        raise UmlError(
            f"{image}: its ocfs2 has room for {volume.slots} nodes, and there are {len(cluster.nodes)}",
            f"tunefs.ocfs2 -N {len(cluster.nodes)} makes room",
        )
    return volume
