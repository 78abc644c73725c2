"""Debian's packages of another suite, for an ordinary user: by apt's own tools with a configuration of our own.

apt checks the signatures. The host's own state of apt is neither used nor changed; only how to reach the network
(proxies and the like) is taken from its configuration. What apt has fetched stays in the cache, so that an interrupted
download goes on and a second one is quick.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from runtime.host import cache
from runtime.kernels.apt_sources import AptSource, debian
from runtime.kernels.programs import run
from umlfs.errors import UmlError, UsageError

SUITES: Final = ("testing", "stable", "unstable", "oldstable")
"""Where a version is looked for."""
NEWEST: Final = "testing"
"""The suite of the newest kernels that others have tried for some days."""
TOOLS: Final = ("apt-get", "apt-cache", "apt-config", "dpkg-deb")
NO_APT: Final = (
    "install apt and debian-archive-keyring (Fedora: `dnf install apt dpkg debian-keyring`, Alpine has no apt), "
    "build one with 'uml kernel build', or name a kernel's file with --kernel"
)
KEYS: Final = "install debian-archive-keyring, or name the keys with --keyring FILE"

Say = Callable[[str], None]
"""Gets a line of what goes on."""
_SUITE: Final = re.compile(r"[a-z][a-z0-9/-]*\Z")
_ADDRESS: Final = re.compile(r"[a-z+]+:[^\s\[\]]+\Z")
_INHERITED: Final = re.compile(r'Acquire(?!::IndexTargets|::Allow)[^ ]* ".*";\Z')


@dataclass(frozen=True, slots=True)
class Package:
    """One version of a package that can be fetched."""

    name: str
    version: str
    suite: str

    def __str__(self) -> str:
        return f"{self.name}={self.version}"


class Apt:
    """apt for some suites of one mirror. Blocks while apt works."""

    def __init__(
        self,
        suites: Sequence[str],
        *,
        mirror: str | None = None,
        keyring: str | None = None,
        say: Say = lambda line: None,
    ) -> None:
        """UmlError if apt or the keys are not there."""
        for tool in TOOLS:
            if shutil.which(tool) is None:
                raise UmlError(f"the program {tool} is not there, and Debian's kernels are fetched by it", NO_APT)
        for suite in suites:
            if not _SUITE.match(suite):
                raise UsageError(f"{suite}: not a suite of Debian", "name one such as trixie, testing or sid")
        if mirror and not _ADDRESS.match(mirror):
            raise UsageError(f"--mirror {mirror}: not an address", "name one such as https://deb.debian.org/debian")
        here = debian()
        if not mirror and not here.uri:
            raise UmlError("this host's apt has no mirror of Debian", "name one by --mirror")
        self.source = AptSource(mirror or here.uri, tuple(suites), keyring or here.signed_by)
        self._say = say
        root = cache.directory()
        if root is None:
            raise UmlError("no cache directory for what apt fetches", "name one in XDG_CACHE_HOME")
        self._place = root / "apt"
        self._environment = self._configure()

    def _configure(self) -> dict[str, str]:
        for name in ("lists/partial", "archives/partial", "etc/apt.conf.d", "etc/preferences.d"):
            (self._place / name).mkdir(parents=True, exist_ok=True, mode=0o700)
        (self._place / "status").touch()
        signed = f"[signed-by={self._keys()}] "
        lines = (f"deb {signed}{self.source.uri} {suite} main\n" for suite in self.source.suites)
        cache.write_atomically(self._place / "sources.list", "".join(lines).encode())
        configuration = self._place / "apt.conf"
        cache.write_atomically(configuration, "\n".join([*self._inherited(), *self._own()]).encode() + b"\n")
        return {
            **os.environ,
            "APT_CONFIG": str(configuration),
            "LC_ALL": "C.UTF-8",
            "DEBIAN_FRONTEND": "noninteractive",
        }

    def _keys(self) -> Path:
        signed_by = self.source.signed_by
        if "BEGIN PGP" in signed_by:
            return cache.write_atomically(self._place / "keys.asc", signed_by.encode() + b"\n")
        path = Path(signed_by or "/nowhere").absolute()
        if not path.is_file():
            raise UmlError(f"{signed_by or 'the keys of Debian'}: no keys to check signatures by", KEYS)
        return path

    def _own(self) -> list[str]:
        place = self._place
        return [
            f'Dir::Etc "{place}/etc";',
            f'Dir::Etc::sourcelist "{place}/sources.list";',
            'Dir::Etc::sourceparts "/dev/null";',
            'Dir::Etc::netrc "/etc/apt/auth.conf";',
            'Dir::Etc::netrcparts "/etc/apt/auth.conf.d";',
            f'Dir::State "{place}";',
            f'Dir::State::lists "{place}/lists";',
            f'Dir::State::status "{place}/status";',
            f'Dir::Cache "{place}";',
            f'Dir::Cache::archives "{place}/archives";',
            'APT::Architecture "amd64";',
            "#clear APT::Architectures;",
            'APT::Architectures { "amd64"; };',
            'APT::Sandbox::User "root";',
            'Acquire::Languages "none";',
            'Acquire::PDiffs "false";',
            'Acquire::GzipIndexes "true";',
            'Acquire::AllowInsecureRepositories "false";',
            'Acquire::AllowWeakRepositories "false";',
            'Acquire::AllowDowngradeToInsecureRepositories "false";',
            'Acquire::AllowReleaseInfoChange "true";',
        ]

    @staticmethod
    def _inherited() -> list[str]:
        """How this host reaches the network."""
        output = run(["apt-config", "dump"]).output
        return [line for line in output.splitlines() if _INHERITED.match(line)]

    def update(self) -> None:
        """Have the lists of the suites as they are now. UmlError."""
        self._say(f"reading what {self.source.uri} has in {', '.join(self.source.suites)}")
        self._run(["apt-get", "-q", "-o", "APT::Update::Error-Mode=any", "update"], "the lists cannot be had")

    def versions(self, name: str) -> list[Package]:
        """The versions of a package, as apt orders them: the newest first."""
        output = self._run(["apt-cache", "madison", name], f"{name} cannot be looked up")
        rows = ([cell.strip() for cell in line.split("|")] for line in output.splitlines())
        return [Package(row[0], row[1], row[2].split()[1].partition("/")[0]) for row in rows if len(row) == 3]

    def search(self, pattern: str) -> list[str]:
        """The names of packages that match a regular expression."""
        return [
            line.split()[0]
            for line in self._run(["apt-cache", "pkgnames"], "no names").splitlines()
            if re.match(pattern, line)
        ]

    def size(self, package: Package) -> int:
        """Of the file, in bytes."""
        output = self._run(["apt-cache", "show", str(package)], f"{package} cannot be looked up")
        found = re.search(r"^Size: (\d+)$", output, re.MULTILINE)
        return int(found[1]) if found else 0

    def download(self, package: Package) -> Path:
        """The package's file, checked by apt; what an earlier try has fetched of it is not fetched again. UmlError."""
        archives = self._place / "archives"
        self._say(f"fetching {package.name} {package.version} ({self.size(package) >> 20} MiB)")
        cache.write_atomically(self._place / "status", self._met(package).encode())
        # Not `apt-get download`, which begins anew each time.
        fetch = ["apt-get", "-q", "-y", "--download-only", "--allow-downgrades", "install"]
        self._run([*fetch, "--no-install-recommends", str(package)], f"{package} cannot be fetched")
        version = package.version.replace(":", "%3a")
        found = sorted(archives.glob(f"{package.name}_{version}_*.deb"))
        if not found:
            raise UmlError(f"{package}: apt has fetched no file of it", "try again")
        return found[0]

    def _met(self, package: Package) -> str:
        """The state of a host on which all that the package needs is installed: so it comes alone."""
        output = self._run(["apt-cache", "show", str(package)], f"{package} cannot be looked up")
        lines = re.findall(r"^(?:Pre-)?Depends: (.*)$", output, re.MULTILINE)
        needed = (each.partition("|")[0].strip() for line in lines for each in line.split(","))
        return "".join(_installed(each) for each in sorted(set(needed)))

    def forget(self, *files: Path) -> None:
        """Remove files of packages that are unpacked."""
        for path in files:
            path.unlink(missing_ok=True)

    def _run(self, command: Sequence[str], what: str) -> str:
        done = run(command, environment=self._environment, directory=self._place)
        if done.returncode:
            said = done.errors
            why = reason(said)
            details = said.strip()[-2000:] if why == SILENT else ""
            raise UmlError(f"{what}: {why}", way_out(said), details=details)
        return done.output


def _installed(need: str) -> str:
    """The entry of a package that meets a need, `NAME (>= VERSION)`."""
    name = re.split(r"[ (:]", need)[0]
    exact = re.search(r"\(= (.*)\)", need)
    lines = [f"Package: {name}", "Status: install ok installed", f"Version: {exact[1] if exact else '999:0'}"]
    return "\n".join([*lines, "Architecture: amd64", "Multi-Arch: same", "\n"])


SILENT: Final = "apt failed"
_UNKNOWN_KEY: Final = ("NO_PUBKEY", "Missing key")
"""As gpgv says it, and sqv, which apt asks from Debian 13 on."""
_REASONS: Final[Mapping[str, str]] = {
    **dict.fromkeys(_UNKNOWN_KEY, "its signature is by a key that is not known here"),
    "BADSIG": "its signature is wrong",
    "has been manipulated": "its signature is wrong",
    "is not signed": "it is not signed",
    "does not have a Release file": "there is no such suite",
    "Hash Sum mismatch": "what came is not what the archive says it has",
    "No space left": "no space left on the disk",
    "Could not resolve": "its name cannot be resolved",
    "Temporary failure resolving": "its name cannot be resolved",
    "is expired": "it is too old to be trusted",
}
_WAYS_OUT: Final[Mapping[str, str]] = {
    **dict.fromkeys(_UNKNOWN_KEY, KEYS),
    "does not have a Release file": "name one such as trixie, testing or sid",
    "Hash Sum mismatch": "try again later, or another --mirror",
    "No space left": "make some, or name another place in XDG_CACHE_HOME",
    "is expired": "is this host's clock right?",
}


def reason(said: str) -> str:
    """What apt complained of, in a few words."""
    for mark, text in _REASONS.items():
        if mark in said:
            return text
    lines = [line[2:].strip() for line in said.splitlines() if line.startswith("E:")]
    return " ".join(lines[0].split()).rstrip(".") if lines else SILENT


def way_out(said: str) -> str:
    """What to do then."""
    return next(
        (text for mark, text in _WAYS_OUT.items() if mark in said),
        "is the network there? try again, or another --mirror",
    )
