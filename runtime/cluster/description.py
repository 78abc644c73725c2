"""What a cluster is: everything that its file says, checked.

nodes = 2
dead_seconds = 30

[machine]            # what each node is: the keys of a machine's file
memory = "256M"
root = "debian.img"

[[shared]]
image = "mail-shared.img"
filesystem = "ocfs2"
mount = "/shared"

[node.2]             # what one of them has otherwise
memory = "512M"
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from runtime.machines import description as machines
from runtime.machines.description import SUFFIX, Description
from runtime.machines.directory import check_umid
from runtime.network.lab import check_name
from umlfs import ubd
from umlfs.errors import UmlError, UsageError

NODES_MAX: Final = 32
"""As many as ocfs2 is tested with."""
FILESYSTEMS: Final = ("ocfs2", "none")
"""What a shared disk may hold: `none` is the nodes' own matter."""
MEMORY_MIN: Final = 96 << 20
"""Bytes. With ocfs2 and its lock manager a node has some 60 MiB to itself."""
DEAD_SECONDS: Final = (6, 300)
KEYS: Final = ("nodes", "dead_seconds", "machine", "shared", "node")
OURS: Final = frozenset({"umid", "uml_dir", "throwaway", "reboot", "common_log"})
"""What a cluster decides for its machines."""


@dataclass(frozen=True, slots=True)
class Shared:
    """A disk that all nodes have."""

    image: str
    """The path of the image; relative to the cluster's file."""
    filesystem: str = FILESYSTEMS[0]
    mount: str = ""
    """Where in the nodes it is mounted; empty if it is not."""


@dataclass(frozen=True, slots=True)
class ClusterNode:
    """One machine."""

    number: int
    """From 1."""
    umid: str
    machine: Description
    """As the file has it: without what the cluster adds."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster, as its file describes it."""

    name: str
    file: Path
    """Absolute. Relative paths in it are relative to its directory."""
    nodes: tuple[ClusterNode, ...]
    shared: tuple[Shared, ...]
    dead_seconds: int
    """How long a node is silent until the others count it as dead."""

    @property
    def directory(self) -> Path:
        return self.file.parent

    def image(self, disk: Shared) -> Path:
        """The absolute path of a disk's image."""
        return self.directory / disk.image

    def disks(self) -> dict[int, Shared]:
        """The shared disks by their units: those after the ones that some node has for itself."""
        taken = {ubd.parse(word).unit for node in self.nodes for word in node.machine.ubds} | {0}
        free = [unit for unit in range(ubd.spec.UNITS) if unit not in taken]
        if len(free) < len(self.shared):
            raise UsageError(f"{self.file}: {len(self.shared)} shared disks", f"there is room for {len(free)}")
        return dict(zip(free, self.shared, strict=False))


def load(path: Path) -> Cluster:
    """The cluster in a file, whose name without `.toml` is the cluster's. UmlError if it cannot be read, UsageError for
    what it cannot mean."""
    import tomllib

    if path.suffix != SUFFIX:
        raise UsageError(f"{path}: not the file of a cluster", f"its name ends in {SUFFIX}")
    try:
        with path.open("rb") as file:
            table = tomllib.loads(file.read(machines.SIZE_MAX).decode())
        return _cluster(path.absolute(), table)
    except OSError as error:
        raise UmlError(f"{path}: cannot be read: {error.strerror}", "'uml cluster init' makes one") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{path}: no TOML: {error}", "'uml cluster init' writes one that is") from None
    except UsageError as error:
        raise UsageError(f"{path}: {error.what}", error.way_out) from None


def _cluster(path: Path, table: dict[str, Any]) -> Cluster:
    for key in table:
        if key not in KEYS:
            raise UsageError(f"unknown key '{key}'", f"known are {', '.join(KEYS)}")
    name = check_name(path.stem)
    count = _number(table, "nodes", 2, 1, NODES_MAX)
    common = _table(table, "machine")
    own = _table(table, "node")
    for number in own:
        if number not in map(str, range(1, count + 1)):
            raise UsageError(f"[node.{number}]: no such node", f"they are 1 to {count}")
    nodes = [_node(name, number, common, _table(own, str(number))) for number in range(1, count + 1)]
    cluster = Cluster(
        name, path, tuple(nodes), _disks(table), _number(table, "dead_seconds", 30, DEAD_SECONDS[0], DEAD_SECONDS[1])
    )
    cluster.disks()
    return cluster


def _number(table: Mapping[str, Any], key: str, default: int, least: int, most: int) -> int:
    value = table.get(key, default)
    if type(value) is not int or not least <= value <= most:
        raise UsageError(f"{key} = {value!r}", f"a number from {least} to {most}")
    return value


def _table(table: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = table.get(key, {})
    if not isinstance(value, dict):
        raise UsageError(f"'{key}' is not a table", f"write it as [{key}]")
    return value


def _node(name: str, number: int, common: dict[str, Any], own: dict[str, Any]) -> ClusterNode:
    where = f"[node.{number}]" if own else "[machine]"
    merged = {**common, **own}
    if ours := sorted(OURS & set(merged)):
        raise UsageError(f"{where}: '{ours[0]}' is the cluster's to say", "leave it out")
    try:
        machine = machines.decode(merged)
    except UsageError as error:
        raise UsageError(f"{where}: {error.what}", error.way_out) from None
    if machine.memory < MEMORY_MIN:
        raise UsageError(
            f"{where}: memory = {machine.memory >> 20}M is too little for a node", f"{MEMORY_MIN >> 20}M do"
        )
    if machine.initrd or machine.root_device:
        raise UsageError(f"{where}: a node has its root by 'root'", "name a directory or an image there")
    if machine.ubd_driver != machines.DRIVERS[0] and machine.root:
        raise UsageError(
            f"{where}: ubd_driver = '{machine.ubd_driver}'", "leave it out: the root is a COW file of ours"
        )
    return ClusterNode(number, check_umid(f"{name}-{number}"), machine)


def _disks(table: dict[str, Any]) -> tuple[Shared, ...]:
    rows = table.get("shared", [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UsageError("'shared' is not a list of tables", "write each disk as [[shared]]")
    disks = tuple(_disk(row) for row in rows)
    for what in ("image", "mount"):
        seen = [getattr(disk, what) for disk in disks if getattr(disk, what)]
        if twice := next((each for each in seen if seen.count(each) > 1), None):
            raise UsageError(f"[[shared]]: {what} = '{twice}' is there twice", "give each disk its own")
    return disks


_PLACE: Final = re.compile(r"(/[^/\0\n]+)+\Z")


def _disk(row: dict[str, Any]) -> Shared:
    known = ("image", "filesystem", "mount")
    for key, value in row.items():
        if key not in known or not isinstance(value, str):
            raise UsageError(f"[[shared]]: {key} = {value!r}", f"it takes texts: {', '.join(known)}")
    disk = replace(Shared(""), **row)
    if not disk.image or set(disk.image) & set(',:\n"\0'):
        raise UsageError(f"[[shared]]: image = '{disk.image}'", "name a file, without ',' and ':' in its path")
    if disk.filesystem == "gfs2":
        raise UsageError("[[shared]]: filesystem = 'gfs2' needs dlm_controld and corosync in the nodes", "take ocfs2")
    if disk.filesystem not in FILESYSTEMS:
        raise UsageError(
            f"[[shared]]: filesystem = '{disk.filesystem}'", f"nodes can have {' and '.join(FILESYSTEMS)} in common"
        )
    if disk.mount and (disk.filesystem == "none" or not _PLACE.match(disk.mount)):
        raise UsageError(f"[[shared]]: mount = '{disk.mount}'", "an absolute path, for a disk with a filesystem")
    return disk


def encode(nodes: int, machine: Description, disks: list[Shared]) -> str:
    """The file of a cluster, as TOML."""
    lines = ["# A cluster of umlfs: bring it up with `uml cluster up FILE`.\n", f"nodes = {nodes}\n\n[machine]\n"]
    lines += [line for line in machines.encode(machine).splitlines(keepends=True) if not line.startswith("#")]
    for disk in disks:
        lines += ["\n[[shared]]\n", f"image = {json.dumps(disk.image)}\n", f'filesystem = "{disk.filesystem}"\n']
        lines += [f"mount = {json.dumps(disk.mount)}\n"] if disk.mount else []
    return "".join(lines)
