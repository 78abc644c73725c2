"""A Debian, built once for all tests: by an ordinary user, as the documentation has it."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import needs
from tests.guest.caller import Caller, caller_as
from tests.ordinary import ROOT, OrdinaryUser

SECONDS = 600
EPOCH = "1700000000"


@dataclass(frozen=True)
class Walk:
    """What the walk-through of docs/images.md did."""

    caller: Caller
    said: dict[str, tuple[int, str, str]]
    """Exit status, output and errors of each command."""

    @property
    def image(self) -> Path:
        return self.caller.directory / "debian.img"


def lines() -> list[str]:
    block = re.search(r"^```sh\n(.*?)^```$", (ROOT / "docs/images.md").read_text(), re.MULTILINE | re.DOTALL)
    assert block is not None
    return block[1].splitlines()


def command(caller: Caller, line: str) -> subprocess.CompletedProcess[str]:
    """Run a line of the documentation as the caller."""
    words = shlex.split(line)
    assert words.pop(0) == "uml"
    return subprocess.run(
        caller.command(*words), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS, check=False
    )


@pytest.fixture(scope="session")
def walk(user: OrdinaryUser) -> Iterator[Walk]:
    """Follow the walk-through, as an ordinary user where such a one may have a namespace (not below a chroot)."""
    for name in ("mmdebstrap", "newuidmap", "zstd"):
        needs.program(name)
    unprivileged = user.run(user.command(needs.program("unshare"), "--user", "true")).returncode == 0
    with caller_as(user if unprivileged and os.geteuid() == 0 else None) as caller:
        caller.variables["SOURCE_DATE_EPOCH"] = EPOCH
        said = {}
        for line in lines():
            done = command(caller, line)
            said[line] = (done.returncode, done.stdout, done.stderr)
        yield Walk(caller, said)
