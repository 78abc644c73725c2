"""Guests that power off by themselves, while things are under way between them and the host."""

from __future__ import annotations

import subprocess

import pytest

from runtime.guest.initramfs import find_busybox
from tests.guest.caller import BOUND, Caller

pytestmark = [pytest.mark.guest, pytest.mark.kernels]

FULL = "yes & until grep -q '^State:.S' /proc/$!/status; do :; done"


@pytest.mark.parametrize("before", ["true", FULL], ids=["idle", "while nobody reads its output"])
def test_power_off(before: str, me: Caller) -> None:
    """The kernel waits for answers of ours before it ends: there must be one to each question."""
    assert ending(me, f"{before}; {find_busybox()} poweroff -f").startswith("uml: the guest ended by itself; ")


def test_a_restart_is_the_end(me: Caller) -> None:
    """Of a throwaway guest: another boot would not know the command."""
    assert ending(me, f"{find_busybox()} reboot -f").startswith("uml: the guest restarted, which is its end; ")


def ending(me: Caller, script: str) -> str:
    """What is said of a guest that ends below its command."""
    with me.started("--", "sh", "-c", script, stdin=subprocess.DEVNULL) as process:
        assert process.wait(BOUND) == 125
        assert process.stderr is not None
        return str(process.stderr.read().decode())
