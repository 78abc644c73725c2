"""Callers and hosts that have less: the jail is what is left, and says what is not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from runtime.kernels.kernel import find_kernel
from tests import needs
from tests.ordinary import ROOT, OrdinaryUser, for_everybody

pytestmark = pytest.mark.guest

SCRIPT = """
import trio
from dataclasses import replace
from runtime.machine.machine import Machine, Options

async def main():
    async with Machine(Options(memory=64 << 20)) as machine:
        found = machine.layers
        others = {layer: why for layer, why in found.absent.items() if layer != "cgroup"}
        print(replace(found, present=[each for each in found.present if each != "cgroup"], absent=others).describe())

trio.run(main)
"""
DOCKER = "chown dac_override fsetid fowner mknod net_raw setgid setuid setfcap setpcap net_bind_service sys_chroot kill"
"""The capabilities of a container's root."""
ALL = "auto: limits, namespaces, root, privileges, user, landlock, seccomp"
IN_CHROOT = """
mount -t tmpfs none "$1" && mkdir "$1/root" && cd "$1/root"
for each in /*; do
    if [ -L "$each" ]; then cp -a "$each" .
    elif [ -d "$each" ]; then mkdir ".$each" && mount --rbind "$each" ".$each"
    fi
done
mounts() { grep -c . /proc/self/mountinfo; }
before=$(mounts)
shift
chroot . "$@" || exit
test "$before" = "$(mounts)" || echo "mounts are left"
"""
"""Runs a command in a chroot whose `/` is no mount, below the directory `$1`; mounts are seen by others."""
WITHOUT_NAMESPACES = "without namespaces (this process may not make them: {}); without root (it needs namespaces)"


AS_ON_UBUNTU = """
from runtime.jail import plan

namespaces = plan.CLONE_NEWUSER | plan.NAMESPACES
plan.Plan._namespaces = lambda self: iter(("layer", "namespaces", "", "unshare", namespaces, "map", -1, -1))
"""
"""AppArmor lets an ordinary user make a user namespace, and then forbids its map, as the kernel does for another's."""


def layers(
    *before: str, python: Path = Path(sys.executable), path: Sequence[Path] = (ROOT,), script: str = SCRIPT
) -> str:
    """What the jail of a guest has that is booted by way of the command `before`, but for control groups, which a
    host has or has not."""
    command = [*before, str(python), "-P", "-c", script]
    environment = {**os.environ, "PYTHONPATH": ":".join(map(str, path))}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def namespace() -> Iterator[int]:
    """A process in a user namespace that has all users, in which nobody may make another."""
    needs.root()
    with subprocess.Popen([needs.program("unshare"), "-U", "sleep", "1000"]) as process:
        ours = os.readlink("/proc/self/ns/user")
        while os.readlink(f"/proc/{process.pid}/ns/user") == ours:
            assert process.poll() is None, "this host lets root make no user namespace"
            time.sleep(0.01)
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{process.pid}/{name}").write_text("0 0 65536")
        enter = ["nsenter", "-U", "-t", str(process.pid), "--setuid", "0", "--setgid", "0"]
        subprocess.run([*enter, "sh", "-c", "echo 0 >/proc/sys/user/max_user_namespaces"], check=True)
        yield process.pid
        process.kill()


@pytest.mark.mapped_root
def test_root_of_a_container() -> None:
    kept = ",".join(["-all", *(f"+{name}" for name in DOCKER.split())])
    expected = WITHOUT_NAMESPACES.format("Operation not permitted")
    assert layers("setpriv", f"--bounding-set={kept}", "--inh-caps=-all") == (
        f"auto: limits, privileges, user, landlock, seccomp; {expected}"
    )


def in_chroot(directory: Path) -> list[str]:
    """The beginning of a command that runs the rest in a chroot."""
    return ["unshare", "--mount", "--propagation", "shared", "sh", "-c", IN_CHROOT, "sh", str(directory)]


@pytest.mark.mapped_root
def test_root_in_a_chroot(tmp_path: Path) -> None:
    assert layers(*in_chroot(tmp_path)) == ALL


@pytest.mark.mapped_root
def test_root_that_may_not_mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its kernel lies where no other user comes: it stays root."""
    kernel = tmp_path / "shut/linux"
    kernel.parent.mkdir(mode=0o700)
    shutil.copy(find_kernel().path, kernel)
    monkeypatch.setenv("UML_KERNEL", str(kernel))
    place = tmp_path / "root"
    place.mkdir()
    found = layers(*in_chroot(place), "setpriv", "--bounding-set=-sys_chroot")
    assert found.startswith("auto: limits, namespaces, privileges, landlock, seccomp; without ")
    assert "root (nothing can be mounted: Operation not permitted)" in found
    assert "user (only its owner may open /" in found


@pytest.mark.mapped_root
def test_root_without_capabilities() -> None:
    with for_everybody() as (python, path):
        found = layers("setpriv", "--bounding-set=-all", "--inh-caps=-all", python=python, path=path)
    assert found.startswith("auto: limits, privileges, landlock, seccomp; without user (this process has no capability")


def test_no_user_namespaces(namespace: int, user: OrdinaryUser) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as home:
        os.chown(home, user.uid, user.gid)
        enter = ["nsenter", "-U", "-t", str(namespace), "--setuid", "0", "--setgid", "0"]
        become = ["setpriv", f"--reuid={user.uid}", f"--regid={user.gid}", "--clear-groups", "env", f"HOME={home}"]
        expected = WITHOUT_NAMESPACES.format("No space left on device")
        found = layers(*enter, *become, python=user.python, path=user.path)
        assert found == f"auto: limits, privileges, user, landlock, seccomp; {expected}"


def test_user_namespaces_without_a_map(user: OrdinaryUser) -> None:
    before = user.command("PYTHONPATH=" + ":".join(map(str, user.path)))
    found = layers(*before, python=user.python, path=user.path, script=AS_ON_UBUNTU + SCRIPT)
    expected = (
        "without namespaces (this process may not map its user: Invalid argument); without root (it needs namespaces)"
    )
    assert found == f"auto: limits, privileges, user, landlock, seccomp; {expected}"


@pytest.mark.mapped_root
def test_root_of_a_user_namespace() -> None:
    """Where there are no further users."""
    expected = "without user (the user namespace of this process has no other users)"
    with for_everybody() as (python, path):
        found = layers("unshare", "-Ur", python=python, path=path)
    assert found == f"auto: limits, namespaces, root, privileges, landlock, seccomp; {expected}"
