"""A guest in its jail: what it has, what it lacks, and what is said where a host has less."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from runtime.appliance.guest import appliance, options_for
from runtime.command.throwaway import run
from runtime.guest import Init
from runtime.host import compiled as compiled_programs
from runtime.jail import landlock, launch, watchdog
from runtime.jail.confined import run_confined
from runtime.jail.layers import OPTIONAL, Layer, Mode
from runtime.kernels.kernel import find_kernel
from runtime.machine.machine import Machine, Options
from runtime.machine.script import run_script
from tests import needs
from tests.jail.hostile_kernel import attack, compiled
from tests.jail.hostile_module import hostile
from tests.ordinary import OrdinaryUser
from umlfs.blocks.raw import open_raw
from umlfs.errors import UmlError

pytestmark = pytest.mark.guest

HOSTILE = """
mkdir /k && ln -s / /link
for place in / /.. /link /proc/1/root; do
    mount -t hostfs none /k -o "$place" 2>/dev/null && echo "hostfs at $place"
done
cat /proc/filesystems | grep hostfs
ls /dev/mmapper /dev/dsp 2>/dev/null
echo done
"""


def test_a_hostile_guest() -> None:
    """Root in a stock guest finds no door to the host."""
    done = trio.run(run, ["sh", "-c", HOSTILE], Options(memory=64 << 20))
    assert done.stdout == b"done\n"


@pytest.mark.parametrize("locked", [False, True])
def test_modules(locked: bool) -> None:
    script = "cat /proc/sys/kernel/modules_disabled; modprobe nbd 2>/dev/null; echo $?"
    done = trio.run(run, ["sh", "-c", script], Options(memory=64 << 20, lock_modules=locked))
    assert done.stdout == (b"1\n1\n" if locked else b"0\n0\n")


@pytest.mark.parametrize("mode", Mode)
def test_a_hostile_module(mode: Mode, tmp_path: Path) -> None:
    """It runs in the kernel process, and makes system calls as that does."""
    tmp_path.chmod(0o777)
    kernel = find_kernel()
    assert kernel.modules is not None
    (tmp_path / "evil.ko").write_bytes(hostile(kernel.modules, tmp_path / "written"))
    script = f"insmod {tmp_path}/evil.ko"
    done = trio.run(run, ["sh", "-c", script], Options(memory=64 << 20, jail=mode))
    assert (tmp_path / "written").exists() == (mode is Mode.OFF)
    assert (done.returncode == 0) == (mode is Mode.OFF), done.stderr


async def test_all_layers() -> None:
    async with Machine(Options(memory=64 << 20, jail=Mode.STRICT)) as machine:
        assert set(machine.layers.present) >= set(Layer) - OPTIONAL
        assert not machine.layers.lacking
        assert not machine.layers.refused
        status = Path(f"/proc/{machine.pid}/status").read_text()
        assert "NoNewPrivs:\t1\n" in status
        assert "CapEff:\t0000000000000000\n" in status
        assert "Seccomp:\t2\n" in status
        assert os.listdir(f"/proc/{machine.pid}/root/proc") == ["cpuinfo"]
        assert machine.directory is not None
        pid = machine.directory / "own/pid"
        assert pid.read_text() == f"{machine.pid}\n"
    assert machine.layers.describe().startswith(f"strict: {', '.join(machine.layers.present)}")


@pytest.mark.parametrize("script", [False, True])
async def test_a_watchdog(script: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel starts its program in the jail, where the host has one: opening the device waits for its word."""
    needs.path("/usr/bin/uml_watchdog")
    if script:  # its interpreter would be half of the host
        (tmp_path / "uml_watchdog").write_text("#!/bin/sh\n")
        monkeypatch.setattr(watchdog, "PROGRAM", tmp_path / "uml_watchdog")
    async with Machine(Options(memory=64 << 20, init=Init(""), jail=Mode.STRICT)) as machine:
        await run_script(machine, f"mknod /tmp/w c 10 130; {'!' if script else ''} ( : >/tmp/w )")


async def test_off() -> None:
    async with Machine(Options(memory=64 << 20, jail=Mode.OFF)) as machine:
        assert machine.layers.describe() == "off"
        assert "Seccomp:\t0\n" in Path(f"/proc/{machine.pid}/status").read_text()


@pytest.mark.kernels
def test_as_an_ordinary_user(user: OrdinaryUser) -> None:
    """Strict, with the internet, and a disk of the kernel's own driver."""
    with tempfile.NamedTemporaryFile(dir=user.home) as disk:
        disk.truncate(1 << 20)
        os.chown(disk.name, user.uid, user.gid)
        given = ("--net", "--ubd", f"ubd0={disk.name}", "--ubd-driver", "native", "--lock-modules")
        script = "cat /proc/sys/kernel/modules_disabled; ls /sys/class/net; echo written >/dev/ubda"
        done = user.run(user.uml("run", "--jail=strict", *given, "--", "sh", "-c", script))
        assert (done.returncode, done.stdout, done.stderr) == (0, "1\neth0\nlo\n", "")
        assert disk.read(8) == b"written\n"


@pytest.mark.parametrize(("mode", "status"), [(0o666, 0), (0o644, 125)])
@pytest.mark.mapped_root
def test_a_native_disk_of_roots(mode: int, status: int, tmp_path: Path) -> None:
    """The kernel is another user than root: what it opens by itself must be open to others."""
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(1 << 20))
    disk.chmod(mode)
    options = ("--jail=strict", "--ubd", f"ubd0={disk}", "--ubd-driver", "native")
    command = [sys.executable, "-c", "from runtime.cli import main; main()", "run", *options, "--", "true"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    why = f"uml: --jail=strict: no user: only its owner may open {disk}; let others open it, or use --jail=auto\n"
    assert (done.returncode, done.stderr) == (status, why if status else "")


async def test_a_strict_appliance(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(bytes(1 << 20))
    device = open_raw(tmp_path / "image", read_only=True)
    try:
        async with Machine(replace(await options_for([device], ["ext4"]), jail=Mode.STRICT)) as machine:
            assert not machine.layers.lacking
    finally:
        await device.close()


# What hosts lack -----------------------------------------------------------------------------


async def test_without_landlock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landlock, "features", lambda: landlock.Features(0))
    monkeypatch.setattr(landlock, "why_absent", lambda: "it is switched off on this host")
    with pytest.raises(UmlError) as caught:
        async with Machine(Options(memory=64 << 20, jail=Mode.STRICT)):
            pass
    why = "--jail=strict: no landlock: it is switched off on this host; see `uml doctor`, or use --jail=auto"
    assert str(caught.value) == why
    async with Machine(Options(memory=64 << 20)) as machine:
        assert machine.layers.lacking == {Layer.LANDLOCK: "it is switched off on this host"}
        assert Layer.SECCOMP in machine.layers.present


@pytest.mark.parametrize("abi", range(1, 8))
def test_older_landlocks(abi: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The attributes and rights of every version are taken by a host that has a newer one."""
    monkeypatch.setattr(landlock, "features", lambda: landlock.Features(abi))
    answer = run_confined([str(find_kernel().path), "--version"], 10)
    assert Layer.LANDLOCK in answer.layers.present
    assert answer.output.decode().strip() == find_kernel().version


async def test_without_a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find_kernel()
    monkeypatch.setattr(launch, "SOURCE", tmp_path / "launcher.c")
    (tmp_path / "launcher.c").write_text("int main(void) { return 0; }")
    monkeypatch.setenv("CC", "/bin/false")
    with pytest.raises(UmlError, match=r"the launcher of jailed kernels; install one .*, or use --jail=off"):
        async with Machine(Options(memory=64 << 20)):
            pass


async def test_an_installation_needs_no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor a cache of the user's."""
    kernel = find_kernel()
    monkeypatch.setattr(compiled_programs, "INSTALLED", tmp_path / "lib")
    launch.install_launcher()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("CC", "/bin/false")
    assert find_kernel() == kernel, "asked in a jail"
    async with Machine(Options(memory=64 << 20, jail=Mode.STRICT)) as machine:
        assert not machine.layers.lacking


# What it says --------------------------------------------------------------------------------


def test_a_system_call_that_ends_it(tmp_path: Path) -> None:
    """In a strict jail; the error names it, and says nothing of a panic."""
    kernel = compiled(tmp_path)

    async def end() -> None:
        options = Options(kernel=str(kernel), memory=64 << 20, jail=Mode.STRICT, arguments=["only=bpf,mount"])
        async with Machine(options):
            pass

    tmp_path.chmod(0o755)
    with pytest.raises(UmlError, match=r"the jail ended the kernel process, which made the system call (mount|bpf)"):
        trio.run(end)


async def test_a_system_call_that_is_refused(tmp_path: Path) -> None:
    found = await attack(compiled(tmp_path), tmp_path, Mode.AUTO, ["bpf", "mount"])
    assert (found.worked, set(found.layers.refused)) == (frozenset(), {"mount", "bpf"})
    assert found.layers.describe().endswith("; refused mount, bpf")
    assert json.loads(json.dumps(found.layers.message()))["refused"] == ["mount", "bpf"]


def test_a_kernel_is_asked_its_version_in_a_jail(tmp_path: Path) -> None:
    """A program that writes a file instead of answering writes none."""
    source = tmp_path / "evil.c"
    source.write_text(
        '#include <stdio.h>\nconst char *mark = "User Mode Linux";\n'
        f'int main(void) {{ FILE *file = fopen("{tmp_path}/written", "w");'
        ' puts(file ? "9.9" : "6.1.0-safe"); return !mark; }\n'
    )
    subprocess.run(["gcc", "-static", str(source), "-o", str(tmp_path / "linux")], check=True)
    assert find_kernel(tmp_path / "linux").version == "6.1.0-safe"
    assert not (tmp_path / "written").exists()


async def test_the_appliance() -> None:
    """It takes no modules."""
    async with appliance([], []) as guest:
        assert guest.connection.broken is None
