"""dpkg's database, read as files: `var/lib/dpkg` below a root (deb-control(5), dpkg-query(1))."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

Fields = dict[str, str]
_SEVERAL: Final = "Multi-Arch"


def stanzas(path: Path) -> Iterator[Fields]:
    """The paragraphs of a control file. OSError."""
    fields: Fields = {}
    name = ""
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            if line[0] in " \t":
                fields[name] = f"{fields.get(name, '')}\n{line.strip()}"
            elif line.strip():
                name, _, value = line.partition(":")
                fields[name] = value.strip()
            elif fields:
                yield fields
                fields = {}
    if fields:
        yield fields


@dataclass(frozen=True, slots=True)
class Package:
    """A package, installed or to be had."""

    fields: Fields

    @property
    def name(self) -> str:
        return self.fields.get("Package", "")

    @property
    def version(self) -> str:
        return self.fields.get("Version", "")

    @property
    def label(self) -> str:
        """`NAME-VERSION`, with the architecture where a system may have several at once."""
        several = f":{self.fields.get('Architecture', '')}" if self.fields.get(_SEVERAL) == "same" else ""
        return f"{self.name}{several}-{self.version}"


class PackageDatabase:
    """That of the system below `root`; read again when it changed. Methods block."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._dpkg = root / "var/lib/dpkg"
        self._lock = threading.Lock()
        self._stamp: tuple[int, int] | None = None
        self._installed: dict[str, Package] = {}
        self._owners: dict[str, list[str]] | None = None

    @property
    def present(self) -> bool:
        return (self._dpkg / "status").is_file()

    def installed(self) -> dict[str, Package]:
        """By label."""
        with self._lock:
            status = os.stat(self._dpkg / "status")
            stamp = status.st_mtime_ns, status.st_ino
            if stamp != self._stamp:
                found = (Package(fields) for fields in stanzas(self._dpkg / "status"))
                self._installed = {
                    one.label: one for one in found if one.fields.get("Status", "").endswith(" installed")
                }
                self._owners, self._stamp = None, stamp
            return self._installed

    def files(self, package: Package) -> list[str]:
        """The paths that a package brought, without a slash before."""
        for name in (package.name, f"{package.name}:{package.fields.get('Architecture', '')}"):
            path = self._dpkg / "info" / f"{name}.list"
            if path.is_file():
                lines = path.read_text("utf-8", "surrogateescape").splitlines()
                return [line.strip("/") for line in lines if line.strip("/.")]
        return []

    def owners(self) -> dict[str, list[str]]:
        """The labels of the packages that have each path, directories too."""
        installed = self.installed()
        with self._lock:
            if self._owners is None:
                owners: dict[str, list[str]] = {}
                for label, package in installed.items():
                    for path in self.files(package):
                        owners.setdefault(path, []).append(label)
                self._owners = owners
            return self._owners

    def available(self) -> Iterator[Package]:
        """What apt's lists offer, a package a version."""
        seen: set[str] = set()
        for path in sorted((self.root / "var/lib/apt/lists").glob("*_Packages")):
            for fields in stanzas(path):
                package = Package(fields)
                if package.label not in seen:
                    seen.add(package.label)
                    yield package
