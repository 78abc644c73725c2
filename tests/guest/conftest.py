"""Booting the installed kernel: with no more than busybox in it, or by the `uml` command."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runtime.guest.initramfs import build, find_busybox
from runtime.kernels.features import features
from runtime.kernels.kernel import find_kernel
from runtime.kernels.tuning import Tuning, command_line, skippable
from tests.guest.caller import Caller, caller_as
from tests.ordinary import OrdinaryUser

Arguments = Callable[..., list[str]]

_LPJ = 30_000_000

_SCRIPT = """\
#!/bin/busybox sh
exec >/dev/console 2>&1
/bin/busybox mount -t proc proc /proc
"""


@pytest.fixture
def kernel_arguments(tmp_path: Path) -> Arguments:
    """Makes the command of a guest: what its init does (shell, busybox, /proc mounted, output on the console), and
    further words of the kernel's command line. The console is the process's descriptor 2."""

    def make(script: str, *words: str, modules: tuple[str, ...] = ()) -> list[str]:
        kernel = find_kernel()
        image = build(kernel, modules, (_SCRIPT + script).encode(), find_busybox(), scratch=tmp_path)
        given = {word.partition("=")[0] for word in words}
        defaults = ("con=none", "ssl=none", "con0=null,fd:2", "mem=64M", f"uml_dir={tmp_path}/", f"initrd={image}")
        lines = [word for word in defaults if word.partition("=")[0] not in given]
        return [
            str(kernel.path),
            *command_line([*lines, *Tuning(_LPJ, skippable(features(kernel))).arguments(), *words]),
        ]

    return make


@pytest.fixture(params=["as we are", "as an ordinary user"])
def caller(request: pytest.FixtureRequest, user: OrdinaryUser) -> Iterator[Caller]:
    """Each test with it runs twice."""
    with caller_as(user if request.param == "as an ordinary user" and os.geteuid() == 0 else None) as somebody:
        yield somebody


@pytest.fixture
def me() -> Iterator[Caller]:
    """The user who runs the tests."""
    with caller_as(None) as somebody:
        yield somebody
