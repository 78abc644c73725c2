"""Moving a machine to another host: what its layers hold is copied by ssh, and it boots there."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Final

import trio

from runtime.host.needs import find_program
from runtime.machines import client
from runtime.machines import description as descriptions
from runtime.machines import directory as layout
from runtime.machines.description import Description
from runtime.machines.starting import start
from umlfs import ubd
from umlfs.cow.backing import is_remote
from umlfs.cow.file import header_at
from umlfs.errors import UmlError, UsageError
from umlfs.host.programs import Program, run_program

MOVED: Final = ".local/share/umlfs/moved"
"""Where machines that came from elsewhere have their files: below the home directory there."""
HALT_SECONDS: Final = 90.0
NETWORKS: Final = ("user", "none")
"""Those that every host has."""
_TARGET: Final = re.compile(r"ssh://((?:[\w.+]+@)?\w[\w.-]*|\[[0-9a-fA-F:]+\])(?::(\d{1,5}))?/?\Z")
_KEPT: Final = frozenset(
    {
        "umid",
        "memory",
        "root",
        "root_type",
        "root_flags",
        "read_only",
        "init",
        "init_arguments",
        "slots",
        "user",
        "ubds",
        "networks",
    }
    | {"publish", "consoles", "reboot", "arguments", "hang_seconds", "jail", "seccomp", "smp", "lock_modules", "nice"}
    | {"cpu_quota", "memory_max", "share", "ubd_driver", "throwaway"}
)
"""What means the same on every host."""
Say = Callable[[str], None]


@dataclass(slots=True)
class Cargo:
    """What a machine is there, and the files that it takes along."""

    description: Description
    still: dict[str, Path] = field(default_factory=dict)
    """Files that it only reads, by their names there."""
    written: dict[str, Path] = field(default_factory=dict)
    """Its COW files."""


class Remote:
    """A host that is reached by ssh."""

    def __init__(self, target: str) -> None:
        """UsageError for what is not `ssh://[USER@]HOST[:PORT]`."""
        found = _TARGET.match(target)
        if found is None:
            raise UsageError(f"--to {target}: not a host", "write it as ssh://[USER@]HOST[:PORT]")
        self.name = found[1]
        self._ssh = [
            find_program("ssh"),
            *(["-p", found[2]] if found[2] else []),
            "--",
            found[1].strip("[]"),
        ]

    def run(self, script: str, input: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
        """A script for a shell there."""
        words = [*self._ssh, f"sh -c {shlex.quote(script)}"]
        return run_program(words, input=input, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def do(self, script: str, input: bytes | None = None) -> str:
        """The same; UmlError with the last line of what it complains of if it fails."""
        done = self.run(script, input)
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().splitlines()
            raise UmlError(f"{self.name}: {said[-1] if said else f'exit status {done.returncode}'}")
        return done.stdout.decode(errors="replace")

    def send(self, files: dict[str, Path], place: str) -> None:
        """Copy files into the directory `place`, with their holes and times. UmlError."""
        for name, path in files.items():
            pack = [
                "tar",
                "--create",
                "--sparse",
                "--transform",
                f"flags=r;s|.*|{name}|",
                "-C",
                str(path.parent),
                "--",
                path.name,
            ]
            unpack = [*self._ssh, f"tar --extract --sparse -C {place}"]
            with Program(pack, stdout=subprocess.PIPE) as packer:
                done = run_program(unpack, stdin=packer.stdout, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
                assert packer.stdout is not None
                packer.stdout.close()
            if done.returncode or packer.wait():
                said = done.stderr.decode(errors="replace").strip().splitlines()
                raise UmlError(f"{path}: was not copied to {self.name}: {said[-1] if said else 'tar failed'}")


def move(path: Path, target: str, say: Say) -> None:
    """Have the machine with the directory `path` go on at `target`: it is halted here, and boots there. What it only
    reads is copied before it halts. UmlError, UsageError; if it cannot boot there it boots here again. Its files here
    stay as they are."""
    remote = Remote(target)
    here = descriptions.load(path / layout.DESCRIPTION)
    cargo = cargo_of(here)
    umid = here.umid
    place = f"{MOVED}/{umid}"
    remote.do("uml --version >/dev/null")
    if remote.run(f"uml ps {shlex.quote(umid)}").returncode == 0:
        raise UmlError(f"{umid}: a machine of that name is running at {remote.name}", "end it there first")
    remote.do(f"mkdir -p {MOVED} && mkdir {place}")
    try:
        remote.send(cargo.still, place)
        say(f"{umid}: halting")
        trio.run(client.ask, path, {"do": "power", "action": "halt", "seconds": HALT_SECONDS})
    except BaseException:
        remote.run(f"rm -rf {place}")
        raise
    try:
        remote.send(cargo.written, place)
        remote.do(f"cat >{place}/machine.toml", descriptions.encode(cargo.description).encode())
        say(f"{umid}: booting at {remote.name}")
        remote.do(f"uml boot -d {place}/machine.toml")
    except BaseException:
        with contextlib.suppress(UmlError, OSError):
            remote.run(f"rm -rf {place}")
        trio.run(start, {key: value for key, value in asdict(here).items() if value is not None})
        say(f"{umid}: boots here again")
        raise


def cargo_of(here: Description) -> Cargo:
    """What must go along. UmlError for a machine that has what another host has not."""
    default = Description()
    for key, value in asdict(here).items():
        if key not in _KEPT and value != getattr(default, key):
            raise UmlError(f"{here.umid}: its {key} is this host's", "boot it without that to move it")
    for word in here.networks:
        if word.partition(":")[0] not in NETWORKS:
            raise UmlError(f"{here.umid}: network {word} is this host's", "boot it with --net user to move it")
    cargo = Cargo(here)
    root = here.root
    if root:
        if not root.startswith("cow:"):
            raise UmlError(f"{here.umid}: its root {root} is this host's", "boot it from a COW file to move it")
        root = f"cow:{_take(cargo, root.removeprefix('cow:'))}"
    elif here.boots_host:
        raise UmlError(f"{here.umid}: its root is this host's own", "boot it from a COW file to move it")
    ubds = [_disk(cargo, ubd.parse(word)) for word in here.ubds]
    cargo.description = replace(here, root=root, ubds=tuple(ubds))
    return cargo


def _disk(cargo: Cargo, spec: ubd.Spec) -> str:
    if spec.shared or is_remote(spec.file):
        raise UmlError(
            f"{spec.name}: {spec.file} is shared with others, or a server's", "leave it out to move the machine"
        )
    files = _take(cargo, spec.file, read_only=spec.read_only).split(",")
    return str(replace(spec, file=files[0], backing=files[1] if len(files) > 1 else None))


def _take(cargo: Cargo, words: str, *, read_only: bool = False) -> str:
    """Take a COW file and its backing file along, or an image that is only read; how they are named there."""
    path = Path(words.split(",")[0])
    number = len(cargo.still) + len(cargo.written)
    if read_only:
        cargo.still[name := f"{number}-{_plain(path)}"] = path
        return name
    try:
        header = header_at(str(path))
    except UmlError:
        raise UmlError(
            f"{path}: is written to, and no COW file", "have a COW file over it, to move the machine"
        ) from None
    cargo.written[name := f"{number}-{_plain(path)}"] = path
    backing = os.fsdecode(header.backing)
    if is_remote(backing):
        return name
    cargo.still[below := f"{number}-base-{_plain(Path(backing))}"] = Path(backing)
    return f"{name},{below}"


def _plain(path: Path) -> str:
    """A name without what a shell, tar or the kernel's words would take for something else."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", path.name)
