"""The tree of a package database."""

from __future__ import annotations

import errno
import os
import posixpath
import subprocess
import tempfile
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import IO, Final

from umlfs.externfs.contents import Contents
from umlfs.externfs.names import quoted, unquoted
from umlfs.externfs.node import Child, Directory, File, Link, Node, Text
from umlfs.externfs.packages.database import Package, PackageDatabase
from umlfs.externfs.spool import Gathered
from umlfs.filesystem import Caller
from umlfs.host.syscalls import failure

_FIELDS: Final = {
    "version": "Version",
    "description": "Description",
    "depends": "Depends",
    "owner": "Maintainer",
    "architecture": "Architecture",
    "source": "Source",
    "size": "Installed-Size",
}
_DEB: Final = ".deb"
_DEB_MAX: Final = 2 << 30


class Manager:
    """Who installs and removes: apt-get, or dpkg where the root is not this system's."""

    def __init__(self, database: PackageDatabase, writable: bool) -> None:
        self.database, self.writable = database, writable
        self.log = ""

    def install(self, name: str, file: IO[bytes]) -> None:
        """A package that somebody wrote. EIO if it cannot be, with the words in the log."""
        with tempfile.TemporaryDirectory(prefix="umlfs-deb-") as directory:
            path = Path(directory) / "package.deb"
            with open(path, "wb") as target:
                while data := file.read(1 << 20):
                    target.write(data)
            command = ["apt-get", "install", "-y", "--allow-downgrades", "--", str(path)]
            self._run(command if self._is_this_system else [*self._dpkg, "--install", str(path)], f"install {name}")

    def remove(self, package: Package) -> None:
        command = ["apt-get", "remove", "-y", "--", package.name]
        self._run(
            command if self._is_this_system else [*self._dpkg, "--remove", package.name], f"remove {package.name}"
        )

    @property
    def _is_this_system(self) -> bool:
        return str(self.database.root) == "/"

    @property
    def _dpkg(self) -> list[str]:
        return ["dpkg", f"--root={self.database.root}", "--force-not-root", "--force-script-chrootless"]

    def _run(self, command: list[str], what: str) -> None:
        if not self.writable:
            raise failure(errno.EROFS)
        if os.geteuid():
            self.log += f"{what}: only root may\n"
            raise failure(errno.EPERM)
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env=environment,
            check=False,
            process_group=0,
        )
        self.log += f"$ {what}\n{done.stdout}{done.stderr}"
        if done.returncode:
            raise failure(errno.EIO)


class Root(Directory):
    """`installed`, `available`, `by-file`, and the `log` of what was done."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager

    def children(self) -> list[Child]:
        log = self._manager.log
        return [
            ("installed", Installed(self._manager)),
            ("available", Available(self._manager.database)),
            ("by-file", ByFile(self._manager.database, "")),
            ("log", Text(log, ("log", log))),
        ]


class Installed(Directory):
    """The packages that are installed. A `.deb` that is put here is installed."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self.mode = 0o755 if manager.writable else 0o555

    @property
    def key(self) -> Hashable:
        return "installed"

    def children(self) -> Iterator[Child]:
        for label, package in list(self._manager.database.installed().items()):
            yield quoted(label), PackageDirectory(self._manager, package)

    def lookup(self, name: str) -> Node:
        package = self._manager.database.installed().get(unquoted(name))
        if package is None:
            raise failure(errno.ENOENT)
        return PackageDirectory(self._manager, package)

    def create(self, name: str, mode: int, caller: Caller) -> Node:
        if not name.endswith(_DEB):
            raise failure(errno.EPERM)
        return Deb(self._manager, name)

    def remove(self, name: str, node: Node) -> None:
        if not isinstance(node, PackageDirectory):
            raise failure(errno.EPERM)
        self._manager.remove(node.package)


class Deb(File):
    """A package on its way."""

    mode = 0o644
    size = 0

    def __init__(self, manager: Manager, name: str) -> None:
        self._manager, self._name = manager, name

    def open(self, flags: int) -> Contents:
        return Gathered(lambda file: self._manager.install(self._name, file), _DEB_MAX)


class PackageDirectory(Directory):
    """What is known of a package, a file for each field, and `files/`."""

    def __init__(self, manager: Manager | None, package: Package) -> None:
        self._manager, self.package = manager, package
        self.mode = 0o755 if manager is not None and manager.writable else 0o555

    @property
    def key(self) -> Hashable:
        return "package", self._manager is None, self.package.label

    def children(self) -> list[Child]:
        found: list[Child] = []
        for name, field in _FIELDS.items():
            value = self.package.fields.get(field)
            if value is not None:
                found.append((name, Text(f"{value}\n", (self.key, name, value))))
        if self._manager is not None:
            found.append(("files", Files(self._manager, self.package, "")))
        return found

    def remove(self, name: str, node: Node) -> None:
        """What is told of a package goes with it."""


class Files(Directory):
    """The files of a package at their places, each a link to the file."""

    def __init__(self, manager: Manager, package: Package, below: str) -> None:
        self._manager, self._package, self._below = manager, package, below
        self.mode = 0o755 if manager.writable else 0o555

    @property
    def key(self) -> Hashable:
        return "files", self._package.label, self._below

    def children(self) -> list[Child]:
        paths = self._manager.database.files(self._package)
        names = _level(paths, self._below)
        found: list[Child] = []
        for name, is_directory in names.items():
            path = f"{self._below}/{name}".strip("/")
            node = Files(self._manager, self._package, path) if is_directory else Link(os.fsencode(f"/{path}"))
            found.append((name, node))
        return found

    def remove(self, name: str, node: Node) -> None:
        """They go with the package."""


def _level(paths: list[str], below: str) -> dict[str, bool]:
    """The names in one directory, and whether each is one itself."""
    start = f"{below}/" if below else ""
    names: dict[str, bool] = {}
    for path in paths:
        if path.startswith(start) and path != below:
            name, slash, _ = path[len(start) :].partition("/")
            names[name] = names.get(name, False) or bool(slash)
    return names


class Available(Directory):
    """What could be installed."""

    def __init__(self, database: PackageDatabase) -> None:
        self._database = database

    @property
    def key(self) -> Hashable:
        return "available"

    def children(self) -> Iterator[Child]:
        for package in self._database.available():
            yield quoted(package.label), PackageDirectory(None, package)


class ByFile(Directory):
    """Paths; each that one package has leads to it, each that several have is a directory."""

    def __init__(self, database: PackageDatabase, path: str) -> None:
        self._database, self._path = database, path

    @property
    def key(self) -> Hashable:
        return "by-file", self._path

    def children(self) -> list[Child]:
        owners = self._database.owners()
        names = _level(list(owners), self._path)
        return [(name, self._child(name, below)) for name, below in names.items()]

    def _child(self, name: str, is_directory: bool) -> Node:
        path = posixpath.join(self._path, name)
        if is_directory:
            return ByFile(self._database, path)
        up = "../" * path.count("/")
        labels = self._database.owners().get(path, [])
        return Link(os.fsencode(f"{up}../installed/{quoted(labels[0])}"))
