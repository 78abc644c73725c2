"""What a node does to join its cluster, as a script for its busybox."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from runtime.cluster.description import Cluster, ClusterNode
from runtime.cluster.ocfs2 import Volume
from runtime.kernels.modules import Module

MODULES_PLACE: Final = "/run/umlfs-modules"
"""Where a node has the modules of its kernel, whatever its root is."""
MODULES: Final = ("ocfs2_stackglue", "ocfs2_nodemanager", "ocfs2_dlm", "ocfs2_stack_o2cb", "ocfs2")
"""What ocfs2 needs, with what these need."""
BEAT_SECONDS: Final = 2
"""Between two heartbeats: the kernel's own."""


def threshold(dead_seconds: int) -> int:
    """The kernel's number for it: how many heartbeats may be missing, and one."""
    return -(-dead_seconds // BEAT_SECONDS) + 1


def script(
    cluster: Cluster,
    node: ClusterNode,
    addresses: Sequence[str],
    volumes: Mapping[int, Volume],
    modules: Sequence[Module],
    below: Path,
) -> str:
    """The script for `node`. `addresses` are the nodes' in their order, `volumes` the filesystems by the units of their
    disks; the files of `modules` are below the directory `below`, which the node has at `MODULES_PLACE`."""
    values = {
        "cluster": cluster.name,
        "me": node.umid,
        "threshold": threshold(cluster.dead_seconds),
        "idle": cluster.dead_seconds * 1000,
        "modules": MODULES_PLACE,
    }
    lines = [f"{name}={shlex.quote(str(value))}" for name, value in values.items()]
    lines.append(Path(__file__).with_name("join.sh").read_text("utf-8"))
    lines += [_call("module", each.name, each.path.relative_to(below)) for each in modules]
    lines.append("form")
    pairs = zip(cluster.nodes, addresses, strict=True)
    lines += [_call("node", other.number, other.umid, address) for other, address in pairs]
    for unit, disk in cluster.disks().items():
        if disk.mount:
            it = volumes[unit]
            lines.append(_call("join", f"/dev/ubd{chr(ord('a') + unit)}", it.uuid, it.start, it.count, disk.mount))
    return "\n".join(lines) + "\n"


def _call(name: str, *arguments: object) -> str:
    return shlex.join([name, *map(str, arguments)])


def leave(cluster: Cluster) -> str:
    """Has a node unmount what it shares: whoever has something of it open keeps it, until the machine ends."""
    mounts = [disk.mount for disk in cluster.shared if disk.mount]
    return "sync\n" + "".join(f"umount {shlex.quote(place)}\n" for place in mounts)
