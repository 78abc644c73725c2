"""The control group of a machine: made where it may be, with limits that hold, and gone afterwards."""

from __future__ import annotations

import sys

import pytest
import trio

from runtime.command.throwaway import run
from runtime.machine.machine import Options
from tests.jail.groups import EXPECTED
from tests.ordinary import ROOT


@pytest.mark.guest
def test_groups() -> None:
    """In a guest: a host may have any groups."""
    script = f"XDG_CACHE_HOME=/tmp PYTHONPATH={ROOT} exec {sys.executable} -P -m tests.jail.groups"
    done = trio.run(run, ["sh", "-c", script], Options(memory=256 << 20))
    assert (done.stdout.decode(), done.returncode) == (EXPECTED, 0), done.stderr.decode()
