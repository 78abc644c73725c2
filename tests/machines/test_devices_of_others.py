"""Words that give the kernel devices of servers that somebody else started, beside those that we serve."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator

import pytest

from tests.machines.household import Household

pytestmark = pytest.mark.guest

SCRIPT = """\
mkdir /tmp/other; mount -t virtiofs hers /tmp/other; cat /tmp/other/seen /ours/seen
for disk in /dev/vd?; do head -c 6 $disk; echo; done 2>/dev/null | grep ' d$' | sort
"""


@contextlib.contextmanager
def serving(house: Household, kind: str, *words: str) -> Iterator[str]:
    """`uml serve`; the socket that it listens at."""
    socket = house.home / f"{kind}.socket"
    command = house.command("serve", kind, *words, "--socket", socket)
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline(), "it listens"
            yield str(socket)
        finally:
            server.terminate()


def test_beside_ours(me: Household) -> None:
    for name in ("hers", "ours"):
        (me.home / name).mkdir()
        (me.home / name / "seen").write_text(f"{name}\n")
        (me.home / f"{name}.img").write_bytes(f"{name} d".encode().ljust(1 << 20, b"\0"))
    with serving(me, "virtiofs", "hers", "--tag", "hers") as files, serving(me, "virtioblk", "raw:hers.img") as disk:
        words = ["--init", "", "mem=64M", "--mount", "/ours=ours", "ubd1=ours.img"]
        words += [f"virtio_uml.device={files}:26", f"virtio_uml.device={disk}:2"]
        me.ok("boot", "-d", "umid=it", *words)
        assert me.ok("exec", "it", "--", "sh", "-ec", SCRIPT).split("\n") == ["hers", "ours", "hers d", "ours d", ""]
        me.ok("halt", "it")
