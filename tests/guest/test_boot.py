"""Real kernels with what this layer makes for them: memory, initramfs, modules."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime.guest.initramfs import load_snippet
from runtime.kernels.kernel import find_kernel
from runtime.kernels.modules import resolve
from runtime.kernels.tuning import Tuning, known_lpj, remember_lpj
from runtime.process.memory import MINIMUM, memory_directory
from runtime.process.processes import fixed_addresses

pytestmark = pytest.mark.guest

Arguments = Callable[..., list[str]]

MODULES = ("virtiofs", "overlay", "virtio_blk")
OFF = "exec poweroff -f\n"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def boot(arguments: list[str]) -> bytes:
    """The log of a kernel that ends by itself."""
    with fixed_addresses():
        done = subprocess.run(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=60,
            env={"TMPDIR": str(memory_directory()), "HOME": "/nowhere"},
        )
    return done.stdout


@pytest.mark.kernels
def test_modules_are_loaded_by_the_shell(kernel_arguments: Arguments) -> None:
    words = load_snippet(find_kernel(), MODULES) or ":"  # they may be built in
    script = f"{words} && echo all loaded; cat /proc/modules; cat /proc/filesystems\n"
    log = boot(kernel_arguments(script + OFF, modules=MODULES))
    assert b"all loaded" in log
    for module in resolve(find_kernel(), MODULES):
        assert b"\n%s " % module.name.encode() in log
    for name in (b"fuse", b"virtiofs", b"overlay"):
        assert re.search(rb"nodev\t%s\r?\n" % name, log)


@pytest.mark.kernels
def test_speed_of_the_processor_is_learnt(kernel_arguments: Arguments) -> None:
    kernel = find_kernel()
    words = [word for word in kernel_arguments(OFF) if not word.startswith("lpj=")]
    value = remember_lpj(kernel, boot(words))
    assert value is not None
    assert known_lpj(kernel) == value
    assert b"Calibrating delay loop (skipped) preset value" in boot([*words, *Tuning(value).arguments()])


def test_least_memory_is_enough(kernel_arguments: Arguments) -> None:
    script = """\
mkdir /lower /upper /root
mount -t tmpfs tmpfs /lower && mkdir /lower/bin && cp /bin/busybox /lower/bin
mount -t tmpfs tmpfs /upper && mkdir /upper/data /upper/work
mount -t overlay overlay /root -o lowerdir=/lower,upperdir=/upper/data,workdir=/upper/work
chroot /root /bin/busybox true && echo true was run
"""
    snippet = load_snippet(find_kernel(), MODULES) + "\n"
    log = boot(kernel_arguments(snippet + script + OFF, f"mem={MINIMUM}", modules=MODULES))
    assert b"true was run" in log
