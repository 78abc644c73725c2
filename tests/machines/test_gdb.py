"""gdb on a running machine's kernel."""

from __future__ import annotations

import pytest

from tests import needs
from tests.machines.household import Household

pytestmark = [pytest.mark.guest, pytest.mark.interop]


def test_it_attaches_and_lets_go(me: Household) -> None:
    """What the kernel lives by is passed on: the machine works as before."""
    needs.program("gdb")
    me.ok("boot", "-d", "umid=it", "mem=64M")
    done = me.uml("gdb", "it", "-batch", "-ex", "info signals SIGSEGV", "-ex", "bt 1")
    assert done.returncode == 0
    assert [line.split()[:4] for line in done.stdout.decode().splitlines() if line.startswith("SIGSEGV")] == [
        ["SIGSEGV", "No", "No", "Yes"]
    ]
    assert "the kernel has no symbols; 'uml kernel build --flavour debug'" in done.stderr.decode()
    assert me.ok("exec", "it", "--", "echo", "alive") == "alive\n"
    me.ok("halt", "it")
    assert me.error("gdb", "it")[0] == 1
