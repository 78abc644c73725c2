"""Clusters whose nodes, networks and keepers are taken from them."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests import needs
from tests.cluster.test_cluster import (
    down,
    killed_amid_writes,
    locks_hold,
    made,
    nothing_synced_is_lost,
    sh,
    states,
    up,
)
from tests.guest.caller import eventually
from tests.machines.household import Household


@pytest.mark.guest
@pytest.mark.slow
def test_four_nodes(ordinary: Household) -> None:
    """One is killed amid its writes; the others go on, and it comes back."""
    uml = ordinary
    path = made(uml, 4, size="256M")
    assert len(up(uml, path)) == 8
    uml.ok("cluster", "exec", "mail", "--", "sh", "-c", "hostname >/shared/$(hostname)")
    names = "mail-1\nmail-2\nmail-3\nmail-4\n"
    for node in (1, 4):
        assert sh(uml, node, "cat /shared/mail-*") == names
    locks_hold(uml, 4, 2)
    count = killed_amid_writes(uml, 3, 20)
    for node in (1, 2, 4):
        nothing_synced_is_lost(uml, node, count)
        assert sh(uml, node, f"echo on >/shared/on.{node}; cat /shared/on.{node}") == "on\n"
    locks_hold(uml, 1, 4)
    assert up(uml, path) == ["mail-1: joined", "mail-2: joined", "mail-3: joined", "mail-3: runs", "mail-4: joined"]
    nothing_synced_is_lost(uml, 3, count)
    assert sh(uml, 3, "cat /shared/on.*; echo back >/shared/back") == "on\non\non\n"
    assert sh(uml, 1, "cat /shared/back") == "back\n"
    down(uml)


@pytest.mark.guest
@pytest.mark.slow
def test_a_node_that_lost_the_others_is_fenced(ordinary: Household) -> None:
    uml = ordinary
    path = made(uml, 2)
    up(uml, path)
    with subprocess.Popen(uml.command("watch", "mail-2"), stdout=subprocess.PIPE) as watch:
        uml.ok("net", "unplug", "mail", "mail-2")
        # What one has locked the other must ask it for, and finds that it cannot.
        sh(uml, 1, "touch /shared/x; sync")
        assert watch.stdout is not None
        said = []
        for line in watch.stdout:
            said.append(line.decode())
            if "EXIT" in said[-1].upper():
                break
        watch.kill()
    assert any("sorry to be fencing this system" in line for line in said), said
    assert eventually(lambda: states(uml)["mail-2"].startswith("ended"))
    assert states(uml)["mail-1"] == "running"
    assert "fencing" in uml.ok("cluster", "logs", "mail")
    assert sh(uml, 1, "echo on >/shared/on; cat /shared/on") == "on\n"
    assert up(uml, path) == ["mail-1: joined", "mail-2: joined", "mail-2: runs"]
    assert sh(uml, 2, "cat /shared/on") == "on\n"
    down(uml)


@pytest.mark.guest
@pytest.mark.slow
def test_down_after_everybody_was_killed(ordinary: Household) -> None:
    """Who looks after the machines, and who stands by should they die: a kernel lives on, and `down` finds it."""
    uml = ordinary
    path = made(uml, 2)
    path.write_text(path.read_text().replace('"ocfs2"', '"none"').replace('mount = "/shared"\n', ""))
    assert up(uml, path) == ["mail-1: runs", "mail-2: runs"]
    assert uml.error("cluster", "up", path.with_name("other.toml"))[0] == 1
    kernels = [each["kernel"] for each in uml.ps()]
    keepers = _keepers(uml.home)
    assert len(keepers) >= 2
    for pid in keepers:
        os.kill(pid, signal.SIGKILL)
    for each in uml.ps():
        os.kill(int(each["pid"]), signal.SIGKILL)
    os.killpg(kernels[0], signal.SIGKILL)
    assert _runs(kernels[1])
    down(uml)
    assert eventually(lambda: not any(_runs(pid) for pid in kernels))


@pytest.mark.guest
@pytest.mark.slow
def test_nodes_from_an_image(ordinary: Household) -> None:
    """Of a root with a shell and nothing else, in an image that stays as it is; each node changes its own COW file."""
    uml = ordinary
    tree, image = uml.home / "tree", uml.home / "root.img"
    for name in ("bin", "dev", "proc", "sys", "run", "tmp", "etc"):
        (tree / name).mkdir(parents=True)
    shutil.copy(needs.path("/bin/busybox"), tree / "bin")
    for name in ("sh", "ls", "cat", "hostname"):
        (tree / "bin" / name).symlink_to("busybox")
    with image.open("wb") as file:
        file.truncate(32 << 20)
    subprocess.run([needs.program("mke2fs"), "-q", "-t", "ext4", "-d", tree, image], check=True)
    before = image.read_bytes()
    path = made(uml, 2)
    path.write_text(path.read_text().replace('init = ""', 'root = "root.img"'))
    up(uml, path)
    uml.ok("cluster", "exec", "mail", "--", "sh", "-c", "hostname >/shared/$(hostname); hostname >/mine")
    assert sh(uml, 1, "cat /shared/mail-* /mine") == "mail-1\nmail-2\nmail-1\n"
    down(uml)
    assert image.read_bytes() == before


@pytest.mark.guest
@pytest.mark.slow
def test_interrupted(ordinary: Household) -> None:
    """Ctrl-C while it comes up: `down` ends what there is, and then it can come up."""
    uml = ordinary
    path = made(uml, 2)
    with subprocess.Popen(uml.command("cluster", "up", path), stderr=subprocess.PIPE) as it:
        assert it.stderr is not None
        assert it.stderr.readline().endswith(b": runs\n")
        os.kill(it.pid, signal.SIGINT)
        assert b"'uml cluster down mail' ends what was started" in it.stderr.read()
    down(uml)
    up(uml, path)
    down(uml)


def _keepers(home: Path) -> list[int]:
    """The shells that stand by: each has the directory that it removes among its words."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if words[0] == b"/bin/sh" and any(word.startswith(f"{home}/run/umlfs-".encode()) for word in words):
                found.append(int(entry.name))
    return found


def _runs(pid: int) -> bool:
    try:
        return ") Z" not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
