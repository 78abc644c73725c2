"""A machine like one that runs: its description, with copies of the COW files that it writes to."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Final

from runtime.machines import description as descriptions
from runtime.machines import directory as layout
from runtime.machines.description import Description
from runtime.mconsole.client import Client
from umlfs import ubd
from umlfs.errors import UmlError
from umlfs.ubd.device import is_cow

SNAPSHOT_SECONDS: Final = 3600.0
"""How long copying may take without a word."""
OWN_ADDRESSES: Final = ("ip=", "mac=")
"""Options of a network that one machine alone can have."""


async def snapshot(path: Path, directory: str = "") -> list[str]:
    """Have the machine with the directory `path` copy the COW files that it writes to, into `directory` (an absolute
    path), or to where each is; the copies' paths. UmlError."""
    reply = await Client(path / layout.MCONSOLE).request(f"snapshot {directory}".rstrip(), SNAPSHOT_SECONDS)
    if reply.err:
        raise UmlError(f"{path.name}: {reply.text.strip()}")
    return reply.text.strip().splitlines()


async def clone(path: Path, umid: str, directory: str = "") -> tuple[Description, list[str]]:
    """The description of a machine called `umid` that is like the one with the directory `path`, and what it does not
    have of that. The copies of COW files are made, in `directory` or beside the originals. UmlError for a machine that
    writes to what two cannot have; then nothing is copied."""
    found = descriptions.load(path / layout.DESCRIPTION)
    layout.check_umid(umid)
    if layout.runs(path.parent / umid):
        raise UmlError(f"{umid}: a machine of that name is running", "choose another")
    cows = _cows(found)
    copies: dict[Path, str] = {}
    if cows:
        if len({cow.name for cow in cows}) < len(cows):
            raise UmlError(f"{found.umid}: two of its COW files have one name", "rename one of them")
        for copy in await snapshot(path, directory):
            name = os.path.basename(copy).rpartition(".")[0]
            copies |= {cow: copy for cow in cows if cow.name == name}
    changed, remarks = _for_itself(found)
    ubds = tuple(_disk(ubd.parse(word), copies) for word in found.ubds)
    return replace(changed, umid=umid, root=_root(found, copies), ubds=ubds), remarks


def _cows(found: Description) -> list[Path]:
    """The COW files that the machine writes to. UmlError if it writes to something else that only one can have."""
    specs = [ubd.parse(word) for word in found.ubds]
    cows = [_cow(spec) for spec in specs if not spec.read_only and not spec.shared]
    if found.root.startswith("cow:"):
        cows.append(Path(found.root.removeprefix("cow:").split(",")[0]))
    elif found.root and not found.throwaway:
        raise UmlError(
            f"{found.umid}: its root {found.root} is written through: two machines would work on the same files",
            "have its root be a COW file, or --throwaway",
        )
    return [cow.resolve() for cow in cows]


def _cow(spec: ubd.Spec) -> Path:
    path = Path(spec.file)
    if spec.plain or not (spec.backing or (path.is_file() and is_cow(str(path)))):
        raise UmlError(
            f"{spec.name}: {spec.file} is written to, and is no COW file: two machines would work on it",
            f"boot with a COW file over it: ubd{spec.unit}=COW,{spec.file}",
        )
    return path


def _root(found: Description, copies: dict[Path, str]) -> str:
    if not found.root.startswith("cow:"):
        return found.root
    return f"cow:{copies[Path(found.root.removeprefix('cow:').split(',')[0]).resolve()]}"


def _disk(spec: ubd.Spec, copies: dict[Path, str]) -> str:
    """The copy finds its backing file by itself."""
    copy = copies.get(Path(spec.file).resolve())
    return str(spec if copy is None else replace(spec, file=copy, backing=None))


def _for_itself(found: Description) -> tuple[Description, list[str]]:
    """Without what only one machine can have: addresses, ports, files of its lines' logs."""
    networks = tuple(_without_addresses(word) for word in found.networks)
    remarks = [f"it publishes no ports: {', '.join(found.publish)} lead to {found.umid}"] if found.publish else []
    return replace(found, networks=networks, publish=()), remarks


def _without_addresses(word: str) -> str:
    kind, _, options = word.partition(":")
    kept = [each for each in options.split(",") if each and not each.startswith(OWN_ADDRESSES)]
    return f"{kind}:{','.join(kept)}" if kept else kind
