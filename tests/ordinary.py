"""An ordinary user of this machine, for what must work without root."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import pwd
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tests import needs

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("umlfs", "hostfs", "humfs", "runtime")
TOOLS = (
    "ruff*",
    "*mypy*",
    "pip*",
    "Cython*",
    "setuptools*",
    "pkg_resources",
    "*pytest*",
    "*hypothesis*",
    "playwright*",
    "mkdocs*",
)
"""What the `uml` command itself never imports, by far the most of what is installed."""


CHECKER = ("pytest", "_pytest", "pluggy", "iniconfig", "packaging")
"""What the contract's checks import."""


@dataclass(frozen=True)
class OrdinaryUser:
    """Somebody without privileges, with a home that is empty at first."""

    name: str
    uid: int
    gid: int
    home: Path
    python: Path
    """An interpreter that this user can run."""
    path: Sequence[Path]
    """Where it finds the project and all that the project imports."""

    def command(self, *args: str | Path) -> list[str]:
        """The command that runs `args` as this user, in their home, with a small environment of their own."""
        drop = []
        if os.geteuid() == 0:
            drop = ["setpriv", f"--reuid={self.uid}", f"--regid={self.gid}", "--clear-groups"]
        return [*drop, "env", "-i", "-C", str(self.home), *self.environment(), *map(str, args)]

    def environment(self) -> list[str]:
        """The user's environment, as `name=value`."""
        kernel = os.environ.get("UML_KERNEL", "")
        named = [f"UML_KERNEL={kernel}"] if kernel and _is_public(Path(kernel)) else []
        return [f"HOME={self.home}", f"USER={self.name}", "PATH=/usr/bin:/bin", "LANG=C.UTF-8", *named]

    def uml(self, *args: str | Path) -> list[str]:
        """The command that runs the project's `uml` as this user."""
        path = f"PYTHONPATH={':'.join(map(str, self.path))}"
        return self.command(path, self.python, "-P", "-c", "from runtime.cli import main; main()", *args)

    def run(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Run one of this user's commands, with no input."""
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)


def _is_public(path: Path) -> bool:
    """Whether everybody may go to `path`, as far as modes tell."""
    return all(each.stat().st_mode & 0o1 for each in (path, *path.parents))


@contextmanager
def ordinary_user() -> Iterator[OrdinaryUser]:
    """The caller if that is an ordinary user, else one who is created for the time of the context."""
    with TemporaryDirectory(prefix="uml-user-", dir="/tmp") as text:
        directory = Path(text)
        home = directory / "home"
        home.mkdir()
        if os.geteuid() != 0:
            name = pwd.getpwuid(os.getuid()).pw_name
            yield OrdinaryUser(name, os.getuid(), os.getgid(), home, Path(sys.executable), [ROOT])
            return
        directory.chmod(0o755)
        name = f"umltest{os.getpid()}"
        with _created(name, home) as (uid, gid):
            os.chown(home, uid, gid)
            yield OrdinaryUser(name, uid, gid, home, _python(), _copied(directory / "lib"))


@contextmanager
def accounts_at_rest() -> Iterator[None]:
    """Of all test processes of this machine one at a time is in here: whoever changes the accounts of the host, or of a
    guest whose /etc is the host's. While useradd works, its lock files are there, for a guest too."""
    etc = os.open("/etc", os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(etc, fcntl.LOCK_EX)
        yield
    finally:
        os.close(etc)


@contextmanager
def _created(name: str, home: Path) -> Iterator[tuple[int, int]]:
    options = ["--no-create-home", "--home-dir", str(home), "--no-log-init", "--user-group", "--shell", "/bin/sh"]
    with accounts_at_rest():
        subprocess.run([needs.program("useradd"), *options, name], check=True)
    try:
        entry = pwd.getpwnam(name)
        yield entry.pw_uid, entry.pw_gid
    finally:
        with accounts_at_rest():
            subprocess.run([needs.program("userdel"), name], check=True, capture_output=True)


def _python() -> Path:
    """Our interpreter, or the system's where ours lies in root's home."""
    ours = Path(sys.executable).resolve()
    return ours if ours.is_relative_to("/usr") else needs.path("/usr/bin/python3")


def _copied(directory: Path) -> list[Path]:
    """Copies of the project and of what it imports: the checkout may lie where only root can go."""
    installed = sysconfig.get_path("platlib")
    shutil.copytree(installed, directory / "installed", ignore=shutil.ignore_patterns(*TOOLS))
    for name in PACKAGES:
        shutil.copytree(ROOT / name, directory / "project" / name)
    return [directory / "project", directory / "installed"]


@contextmanager
def for_everybody() -> Iterator[tuple[Path, Sequence[Path]]]:
    """An interpreter, and where it finds the project, for root who has lost the right to go everywhere."""
    if all(map(_is_public, (Path(sys.executable), ROOT))):
        yield Path(sys.executable), [ROOT]
        return
    with TemporaryDirectory(prefix="uml-user-", dir="/tmp") as text:
        Path(text).chmod(0o755)
        yield _python(), _copied(Path(text))


def copied_checks(directory: Path) -> Path:
    """`directory`, in which Python finds copies of the checks of the contract (`tests.contract.posix`)."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "tests", directory / "tests", ignore=ignored)
    for name in CHECKER:
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        shutil.copytree(Path(spec.origin).parent, directory / name, ignore=ignored)
    return directory
