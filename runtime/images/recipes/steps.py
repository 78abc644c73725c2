"""The steps of a recipe that come after its base: each changes a tree, and is known by what it does."""

from __future__ import annotations

import hashlib
import io
import shlex
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from humfs.archive import import_archive
from runtime.command.throwaway import run
from runtime.images.recipe import hashed
from runtime.images.recipes.description import Description, File, User
from runtime.machine.options import Options
from runtime.process.memory import parse_size
from umlfs.errors import UmlError

_SHOWN: Final = 15
_ENVIRONMENT: Final = {"HOME": "/root", "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
_INSTALL: Final = """\
if command -v apk >/dev/null; then apk add --no-cache {names}
elif command -v apt-get >/dev/null; then apt-get update && apt-get install -y {names} && apt-get clean
elif command -v dnf >/dev/null; then dnf install -y {names} && dnf clean all
else echo "the base has none of apk, apt-get and dnf" >&2; exit 1
fi
"""


class Step(Protocol):
    """One step."""

    @property
    def title(self) -> str:
        """What it does, in a few words."""
        ...

    @property
    def identity(self) -> str:
        """Equal for steps that do the same."""
        ...

    async def take(self, tree: Path) -> None:
        """Change the humfs `tree`. UmlError."""
        ...


@dataclass(frozen=True, slots=True)
class Files:
    """Files are put into the tree; they are root's."""

    files: tuple[File, ...]
    epoch: int | None
    """Their modification time; None for now."""

    @property
    def title(self) -> str:
        return f"{len(self.files)} files"

    @property
    def identity(self) -> str:
        listed = [(each.path, hashlib.sha256(each.content).hexdigest(), each.mode) for each in self.files]
        return repr((listed, self.epoch))

    async def take(self, tree: Path) -> None:
        packed = tree.with_name("files.tar")
        with tarfile.open(packed, "w", format=tarfile.PAX_FORMAT) as archive:
            for each in self.files:
                info = tarfile.TarInfo(f".{each.path}")
                info.mode, info.size = each.mode, len(each.content)
                info.mtime = int(time.time()) if self.epoch is None else self.epoch
                archive.addfile(info, io.BytesIO(each.content))
        await import_archive(tree, str(packed))


@dataclass(frozen=True, slots=True)
class Command:
    """The shell of the tree does something, in a guest whose root it is."""

    title: str
    script: str
    network: bool
    memory: str
    known_by: str = ""
    """In the place of the script, where that is another one each time."""

    @property
    def identity(self) -> str:
        return repr((self.known_by or self.script, self.network))

    async def take(self, tree: Path) -> None:
        from runtime.network.parsing import networks

        options = Options(
            root=f"humfs:{tree}",
            writable=True,
            networks=networks(["user"] if self.network else []),
            memory=parse_size(self.memory),
        )
        done = await run(["/bin/sh", "-e", "-c", self.script], options, environment=_ENVIRONMENT)
        if done.returncode:
            lines = (done.stdout + done.stderr).decode(errors="replace").strip().splitlines()[-_SHOWN:]
            raise UmlError(
                f"{self.title}: failed with status {done.returncode}",
                "its last words are above" if lines else "it said nothing",
                details="\n".join(lines),
            )


def steps(about: Description, epoch: int | None) -> Iterator[Step]:
    """All of them, in their order."""
    network, memory = about.network, about.memory
    if about.base and about.packages:
        names = shlex.join(about.packages)
        yield Command("packages", _INSTALL.format(names=names), network, memory)
    if about.files:
        yield Files(about.files, epoch)
    script = [line for user in about.users for line in _of_user(user, epoch)]
    script += [f"chown {shlex.quote(each.owner)} {shlex.quote(each.path)}" for each in about.files if each.owner]
    if script:
        owners = [(each.path, each.owner) for each in about.files]
        yield Command("users", "\n".join(script), False, memory, repr((about.users, owners)))
    for each in about.run:
        yield Command(f"run {each.strip().partition(chr(10))[0]!r}", each, network, memory)


def _of_user(user: User, epoch: int | None) -> Iterator[str]:
    """Lines for the shell, which make a user with the programs of shadow's, or busybox's."""
    name, shell = shlex.quote(user.name), shlex.quote(user.shell)
    uid = f"-u {user.uid} " if user.uid is not None else ""
    yield f"if command -v useradd >/dev/null; then useradd -m {uid}-s {shell} {name}"
    yield f"else adduser -D {uid}-s {shell} {name}; fi"
    for group in user.groups:
        yield f"if command -v usermod >/dev/null; then usermod -a -G {group} {name}; else addgroup {name} {group}; fi"
    if user.password is not None:
        line = shlex.quote(f"{user.name}:{hashed(user.password, epoch)}")
        yield f"echo {line} | chpasswd -e"
    if user.ssh_key:
        home = f"~{user.name}"
        yield f"mkdir -m 700 {home}/.ssh; echo {shlex.quote(user.ssh_key.strip())} > {home}/.ssh/authorized_keys"
        yield f"chown -R {name}: {home}/.ssh"
