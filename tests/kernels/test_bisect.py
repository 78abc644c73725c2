"""`git bisect run` with `uml run`: which commit made the kernel do wrong."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.kernels.kernel import system_kernel
from tests import needs
from tests.guest.caller import Caller, caller_as

pytestmark = [pytest.mark.guest, pytest.mark.interop]

MAKEFILE = """\
.DELETE_ON_ERROR:
linux: mode
\tLC_ALL=C sed "s/: skas/: $$(cat mode)/" KERNEL >linux
\tchmod +x linux
"""
"""A kernel that takes no time to build: the distribution's, with what it says in /proc/cpuinfo changed."""
MODES = ("skas", "skas", "/", "skas", "SKAS", "SKAS")
"""What each commit has; of the third nothing can be built."""


@pytest.fixture
def me() -> Iterator[Caller]:
    with caller_as(None) as somebody:
        yield somebody


def git(tree: Path, *words: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    environment = os.environ | {"LC_ALL": "C.UTF-8", "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull}
    done = subprocess.run(
        ["git", *identity, *words], cwd=tree, env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    return done.stdout


def test_the_commit_is_found(me: Caller, tmp_path: Path) -> None:
    """One that cannot be built is passed over."""
    for name in ("git", "make"):
        needs.program(name)
    (tmp_path / ".gitignore").write_text("linux\n")
    (tmp_path / "Makefile").write_text(MAKEFILE.replace("KERNEL", str(system_kernel().path)))
    git(tmp_path, "init", "-q", "-b", "main")
    for number, mode in enumerate(MODES):
        (tmp_path / "mode").write_text(mode)
        git(tmp_path, "add", ".")
        git(tmp_path, "commit", "-q", "--allow-empty", "-m", f"number {number}")
    test = shlex.join(me.command("run", "--kernel", tmp_path / "linux", "--", "grep", "-q", "skas", "/proc/cpuinfo"))
    git(tmp_path, "bisect", "start", "HEAD", f"HEAD~{len(MODES) - 1}")
    said = git(tmp_path, "bisect", "run", "sh", "-c", f"make -s linux || exit 125; {test}")
    assert f"{git(tmp_path, 'rev-parse', 'main~1').strip()} is the first bad commit" in said
