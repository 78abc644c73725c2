"""Real kernels with what this layer makes for them: memory, initramfs, modules, the starter."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime import starter
from runtime.initramfs import build, find_busybox, load_snippet, module_paths
from runtime.kernel import find_kernel
from runtime.memory import MINIMUM, memory_directory
from runtime.processes import fixed_addresses
from runtime.tuning import Tuning, known_lpj, remember_lpj

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


def test_modules_are_loaded_by_the_shell(kernel_arguments: Arguments) -> None:
    script = load_snippet(find_kernel(), MODULES) + " && echo all loaded; cat /proc/modules\n"
    log = boot(kernel_arguments(script + OFF, modules=MODULES))
    assert b"all loaded" in log
    for name in (b"fuse", b"virtiofs", b"overlay", b"virtio_blk"):
        assert b"\n" + name + b" " in log


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


def test_starter_makes_the_root(kernel_arguments: Arguments, tmp_path: Path) -> None:
    kernel = find_kernel()
    init = starter.program(
        starter.mount("proc", "/proc", "proc"),
        *(starter.load_module(path) for path in module_paths(kernel, MODULES)),
        *(starter.load_module(path) for path in module_paths(kernel, MODULES[:1])),
        *(starter.mkdir(path) for path in ("/lower", "/upper", "/root")),
        starter.mount("tmpfs", "/lower", "tmpfs"),
        starter.mount("tmpfs", "/upper", "tmpfs", starter.MS_NOSUID, "mode=700"),
        *(starter.mkdir(path) for path in ("/lower/bin", "/lower/proc", "/upper/data", "/upper/work")),
        starter.mount("o", "/root", "overlay", 0, "lowerdir=/lower,upperdir=/upper/data,workdir=/upper/work"),
        starter.mount("/bin", "/root/bin", "", starter.MS_BIND),
        starter.mount("/proc", "/root/proc", "", starter.MS_MOVE),
        starter.enter_root("/root"),
        starter.execute(["/bin/busybox", "sh", "-c", f"echo a=$a; cat /proc/mounts; ls /; {OFF}"], {"a": "b"}),
    )
    image = build(kernel, MODULES, init, find_busybox(), scratch=tmp_path)
    log = boot([*kernel_arguments(OFF), f"initrd={image}", "root="])
    assert b"\na=b\r\n" in log
    assert b"\no / overlay rw," in log
    assert b"lower" not in log.partition(b"workdir=/upper/work")[2]
    assert starter.complaint(log) is None


def test_starter_s_complaint_is_in_the_log(kernel_arguments: Arguments, tmp_path: Path) -> None:
    init = starter.program(starter.mount("root", "/proc", "virtiofs"))
    image = build(find_kernel(), [], init, find_busybox(), scratch=tmp_path)
    error = starter.complaint(boot([*kernel_arguments(OFF), f"initrd={image}"]))
    assert str(error) == "the guest cannot mount root at /proc: No such device"
