"""Guests that power off by themselves, while things are under way between them and the host."""

from __future__ import annotations

import subprocess

import pytest

from runtime.guest.initramfs import find_busybox
from tests.guest.caller import BOUND, Caller

pytestmark = pytest.mark.guest

FULL = "yes & until grep -q '^State:.S' /proc/$!/status; do :; done"


@pytest.mark.parametrize("before", ["true", FULL], ids=["idle", "while nobody reads its output"])
def test_power_off(before: str, me: Caller) -> None:
    """The kernel waits for answers of ours before it ends: there must be one to each question."""
    script = f"{before}; {find_busybox()} poweroff -f"
    with me.started("--", "sh", "-c", script, stdin=subprocess.DEVNULL) as process:
        assert process.wait(BOUND) == 1
        assert process.stderr is not None
        assert b"uml: the guest ended by itself (the kernel's exit status was 0)" in process.stderr.read()
