"""The test suite of a checkout: style and types first, then pytest in place of this process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from umlfs.errors import UmlError

FAILED_CHECKS = "UML_TEST_FAILED_CHECKS"
"""Environment variable that tells tests/conftest.py which checks failed before pytest: it then fails the run. Whoever
calls `run` may name some in it (.ci/run does)."""

WORKERS_MAX = 4
"""How many processes run tests at most. Each boots guests, of some 100 MB and two busy processes."""

ALONE = frozenset(["-s", "--capture", "--pdb", "--trace", "--collect-only", "--co", "--numprocesses"])
"""Options of pytest that want one process."""

WHY_ROOT = "pytest runs as root, by sudo: tests mount, and make the ordinary users whose part they play"
ROOTS_CACHE = "/root/.cache/umlfs/tests"
USERS_OWN = frozenset(
    ["HOME", "USER", "LOGNAME", "MAIL", "SHELL", "TMPDIR", "XDG_RUNTIME_DIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"]
)
"""Variables that root is to have its own of, or none."""


def run(pytest_args: Sequence[str], *, style: bool = True) -> NoReturn:
    """Check style and types, unless `style` is off; then become pytest with `pytest_args`. Its closing line is the last
    one printed.

    A failed check lets pytest run, and fails the run after it. UmlError outside a checkout.
    """
    root = checkout()
    os.chdir(root)
    keeps = os.access(root, os.W_OK)
    before = os.environ.get(FAILED_CHECKS, "")
    failed = [name for name, command in _checks(keeps).items() if not _passes(name, command)] if style else []
    os.environ[FAILED_CHECKS] = ", ".join([before, *failed] if before else failed)
    # Peers such as mke2fs and modinfo lie where the PATH of an ordinary user does not lead.
    os.environ["PATH"] = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    pytest = [sys.executable, "-m", "pytest", *side_by_side(pytest_args, len(os.sched_getaffinity(0)))]
    if may_be_root():
        print(f"uml: {WHY_ROOT}", file=sys.stderr, flush=True)
        os.execvp("sudo", [*as_root(os.environ), *pytest, *_roots_cache(pytest_args), *pytest_args])
    cache = [] if keeps else ["-p", "no:cacheprovider"]
    os.execv(sys.executable, [*pytest, *cache, *pytest_args])


def _roots_cache(pytest_args: Sequence[str]) -> list[str]:
    """The options that keep root's cache out of the checkout; none where `pytest_args` want no cache."""
    return [] if any("no:cacheprovider" in each for each in pytest_args) else ["-o", f"cache_dir={ROOTS_CACHE}/pytest"]


def side_by_side(pytest_args: Sequence[str], processors: int) -> list[str]:
    """The options that let test files run side by side: one for each processor, up to WORKERS_MAX.
    None where `pytest_args` want one process, or name files."""
    names = {each.split("=")[0] for each in pytest_args}
    chosen = any(".py" in each for each in pytest_args)
    if processors < 2 or chosen or names & ALONE or any(each.startswith("-n") for each in pytest_args):
        return []
    return [f"--numprocesses={min(processors, WORKERS_MAX)}", "--dist=loadfile"]


def may_be_root() -> bool:
    """Whether this is an ordinary user who may use sudo; on a terminal that may ask for the password."""
    if os.geteuid() == 0 or not shutil.which("sudo"):
        return False
    if _succeeds(["sudo", "-n", "true"]):
        return True
    return sys.stdin.isatty() and _succeeds(["sudo", "-v"])


def as_root(environment: Mapping[str, str]) -> list[str]:
    """The words before a command that is to run as root with this `environment`, but for what is the user's own. It
    leaves nothing in the checkout, which stays the user's."""
    kept = (f"{name}={value}" for name, value in environment.items() if name not in USERS_OWN and "(" not in name)
    return ["sudo", "-H", "env", *kept, f"PYTHONPYCACHEPREFIX={ROOTS_CACHE}/bytecode"]


def _succeeds(command: Sequence[str]) -> bool:
    return subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode == 0


def checkout() -> Path:
    """The checkout that this code runs from. UmlError where it was installed without its tests."""
    root = Path(__file__).resolve().parents[2]
    if not (root / "tests" / "conftest.py").is_file():
        raise UmlError(f"{root}: no tests here", "clone the project and run ./uml test in it")
    return root


def _checks(keeps: bool) -> dict[str, list[str]]:
    """The checks by name. In a checkout that the caller may not write, none `keeps` a cache."""
    ruff = [] if keeps else ["--no-cache"]
    mypy = [] if keeps else ["--cache-dir", os.devnull]
    return {
        "ruff check": ["ruff", "check", "--quiet", *ruff],
        "ruff format --check": ["ruff", "format", "--check", "--quiet", *ruff],
        "mypy --strict": ["mypy", "--no-error-summary", *mypy],
    }


def _passes(name: str, command: Sequence[str]) -> bool:
    print(f"uml: {name}", file=sys.stderr, flush=True)
    done = subprocess.run([sys.executable, "-m", *command], stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        print(f"uml: {name} failed", file=sys.stderr, flush=True)
    return done.returncode == 0
