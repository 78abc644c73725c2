"""A guest's kernel under gdb from its start, and what it counts."""

from __future__ import annotations

import pytest

from runtime.kernels.features import features
from runtime.kernels.kernel import find_kernel
from tests import needs
from tests.guest.caller import Caller

pytestmark = [pytest.mark.guest, pytest.mark.interop]


@pytest.mark.kernels
def test_gdb_has_the_kernel_before_its_init(caller: Caller) -> None:
    """When it lets go the guest runs on; the command's status is that of the run."""
    needs.program("gdb")
    steps = b"info inferiors\ndetach\necho \\nlet go\\n\nquit\n"
    done = caller.run("--gdb", "--", "sh", "-c", "echo up; exit 3", input=steps)
    assert done.returncode == 3
    inferior, let_go, up = (done.stdout.rindex(text) for text in (b"* 1 ", b"let go", b"up\n"))
    assert inferior < let_go
    assert inferior < up


def test_gdb_that_kills_the_kernel(caller: Caller) -> None:
    done = caller.run("--gdb", "--", "true", input=b"kill\nquit\n")
    assert done.returncode == 125
    assert b"the kernel ended before its guest was up" in done.stderr


def test_what_does_not_go_together(caller: Caller) -> None:
    for words in (("--timeout", "9"), ("--coverage", "x")):
        status, text = caller.error("--gdb", *words, "--", "true")
        assert status == 2
        assert text == f"--gdb and {words[0]} do not go together; leave {words[0]} out"


def test_coverage_of_a_kernel_that_does_not_count(caller: Caller) -> None:
    assert not features(find_kernel()).has_option("CONFIG_GCOV_KERNEL")
    status, text = caller.error("--coverage", "counts", "--", "true")
    assert status == 125
    assert text.endswith("does not count what it runs; build one that does: 'uml kernel build --flavour gcov'")
    assert not (caller.directory / "counts").exists()
