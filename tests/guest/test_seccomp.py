"""Guests whose processes are not traced, where the kernel can do that and a jail stands."""

from __future__ import annotations

import pytest

from runtime.kernels.features import features
from runtime.kernels.kernel import find_kernel
from tests.guest.caller import Caller

pytestmark = [pytest.mark.guest, pytest.mark.kernels]

SAID = b"Checking that seccomp filters can be installed...OK"


def test_by_itself_in_a_jail(me: Caller) -> None:
    def says_so(*words: str) -> bool:
        done = me.run("-v", *words, "--", "true")
        assert done.returncode == 0
        return SAID in done.stderr

    if features(find_kernel()).has_seccomp:
        assert says_so()
        assert not says_so("--seccomp", "off")
        assert not says_so("--jail", "off")
        return
    assert not says_so()
    status, line = me.error("--seccomp", "on", "--", "true")
    assert status == 125
    assert "--seccomp on: Linux " in line
