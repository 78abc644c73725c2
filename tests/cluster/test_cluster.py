"""Clusters of real guests, on a real ocfs2: `uml cluster`, as an ordinary user."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests import needs
from tests.machines.household import Household

LOCKER = """
import fcntl, sys
file = open("/shared/lock", "a")
try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    print("mine", flush=True)
    sys.stdin.read()
except OSError as error:
    print(error.strerror)
"""


def made(uml: Household, nodes: int, *, dead_seconds: int = 10, size: str = "128M", **machine: str) -> Path:
    """A cluster `mail` of that many nodes; its file."""
    needs.program("mkfs.ocfs2")
    path = uml.home / "mail.toml"
    words: list[str | Path] = ["cluster", "init", path, "--nodes", str(nodes), "--shared", size, "--mem", "128M"]
    assert uml.ok(*words).splitlines() == [str(path), str(uml.home / "mail-shared.img")]
    text = path.read_text().replace("\n\n[machine]", f"\ndead_seconds = {dead_seconds}\n\n[machine]")
    more = "".join(f"{key} = {json.dumps(value)}\n" for key, value in machine.items())
    path.write_text(text.replace('init = ""\n', f'init = ""\n{more}'))
    return path


def up(uml: Household, path: Path) -> list[str]:
    done = uml.uml("cluster", "up", path)
    assert done.returncode == 0, done.stderr
    return sorted(line.removeprefix("uml: ") for line in done.stderr.decode().splitlines())


def down(uml: Household) -> None:
    """Nothing may be left of it but the shared disk, on which ocfs2 finds nothing to mend."""
    done = uml.uml("cluster", "down", "mail")
    assert done.returncode == 0, done.stderr
    assert uml.ok("net", "ls") == ""
    assert uml.ok("ps", "-a", "--json") == "[]\n"
    assert list((uml.home / ".local/state/umlfs/clusters").iterdir()) == []
    check(uml)


def check(uml: Household) -> None:
    fsck = [needs.program("fsck.ocfs2"), "-fn", str(uml.home / "mail-shared.img")]
    done = subprocess.run(fsck, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "All passes succeeded" in done.stdout


def sh(uml: Household, node: int, script: str) -> str:
    return uml.ok("exec", f"mail-{node}", "--", "sh", "-c", script)


def locks_hold(uml: Household, first: int, second: int) -> None:
    """What one node has locked by flock another does not get, until it is let go. (Of POSIX locks o2cb knows none.)"""
    command = ["--", "python3", "-c", LOCKER]
    with subprocess.Popen(
        uml.command("exec", "-i", f"mail-{first}", *command), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"mine\n"
        assert uml.ok("exec", f"mail-{second}", *command) == "Resource temporarily unavailable\n"
        holder.communicate()
    assert uml.ok("exec", f"mail-{second}", *command) == "mine\n"


WRITER = """
i=0
while [ $i -lt 5000 ]; do
    i=$((i + 1))
    printf '%4096d' $i >/shared/synced.$i
    sync /shared/synced.$i
    echo $i
done
"""


def killed_amid_writes(uml: Household, node: int, after: int) -> int:
    """Kill a node's kernel while it writes files; how many of them were synced."""
    with subprocess.Popen(uml.command("exec", f"mail-{node}", "--", "sh", "-c", WRITER), stdout=subprocess.PIPE) as it:
        assert it.stdout is not None
        for _ in range(after):
            it.stdout.readline()
        os.killpg(kernel(uml, node), 9)
        said = it.stdout.read().split()
    return int(said[-1]) if said else after


def kernel(uml: Household, node: int) -> int:
    return next(int(each["kernel"]) for each in uml.ps() if each["umid"] == f"mail-{node}")


def nothing_synced_is_lost(uml: Household, node: int, count: int) -> None:
    said = sh(uml, node, f"cd /shared; seq -f synced.%g {count} | xargs cat")
    assert said == "".join(f"{number:4096d}" for number in range(1, count + 1))


def states(uml: Household) -> dict[str, Any]:
    return {each["umid"]: each["state"] for each in json.loads(uml.ok("cluster", "ps", "mail", "--json"))}


@pytest.mark.guest
def test_two_nodes(ordinary: Household) -> None:
    """Each writes and both see; locks hold; one is killed amid writes, the other recovers and goes on; all is gone in
    the end."""
    uml = ordinary
    path = made(uml, 2, dead_seconds=6)
    assert up(uml, path) == ["mail-1: joined", "mail-1: runs", "mail-2: joined", "mail-2: runs"]
    assert uml.ok("cluster", "exec", path, "--", "sh", "-c", "hostname >/shared/$(hostname)") == "mail-1: \nmail-2: \n"
    assert uml.ok("cluster", "exec", "mail", "cat", "/shared/mail-1", "/shared/mail-2") == (
        "mail-1: mail-1\n  mail-2\nmail-2: mail-1\n  mail-2\n"
    )
    locks_hold(uml, 1, 2)
    refused(uml, path)
    count = killed_amid_writes(uml, 1, 20)
    nothing_synced_is_lost(uml, 2, count)
    assert sh(uml, 2, "echo on >/shared/on; cat /shared/on") == "on\n"
    found = states(uml)
    assert found["mail-2"] == "running"
    assert found["mail-1"].startswith("ended (137)")
    assert "mail-2: " in uml.ok("cluster", "logs", "mail")
    down(uml)
    assert uml.error("cluster", "down", "mail")[1].startswith("mail: no such cluster is up")


def refused(uml: Household, path: Path) -> None:
    """What another may not do meanwhile."""
    image = uml.home / "mail-shared.img"
    assert "in use by the machine mail-" in uml.error("run", "--ubd", f"ubd1={image}", "--", "true")[1]
    other = uml.home / "other"
    other.mkdir(exist_ok=True)
    copy = other / path.name
    copy.write_text(path.read_text())
    assert uml.error("cluster", "up", copy)[1].startswith(f"mail: a cluster of that name is up, of {path}")
