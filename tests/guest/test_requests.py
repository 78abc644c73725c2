"""How many questions a guest's kernel asks us for each file: what it costs, whatever the machine's speed is."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from hostfs.settings import LIFETIMES, Cache
from runtime import HostMount, Options
from runtime.machine.machine import Machine
from runtime.tty.caller import DEFAULT_PATH
from runtime.tty.streams import Collector
from umlfs.buffers import Buffers
from umlfs.filesystem import Filesystem
from umlfs.fuse.session import FuseSession
from umlfs.virtio.fs import VirtioFs
from umlfs.wire.fuse import IN_HEADER, Opcode

pytestmark = pytest.mark.guest

FILES = 250
BASE = 150
"""Requests that a job makes besides: its programs and libraries, and directories."""
UNASKED = (Opcode.FORGET, Opcode.BATCH_FORGET)
"""What nobody waits for an answer to."""


class Counts:
    """Requests by filesystem and kind."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._by_filesystem: dict[int, Counter[int]] = {}
        handle = FuseSession.handle

        async def counted(session: FuseSession, request: Buffers, answer: Buffers) -> int:
            opcode = IN_HEADER.unpack(b"".join(request)[: IN_HEADER.size])[1]
            self._by_filesystem.setdefault(id(session.filesystem), Counter())[opcode] += 1
            return await handle(session, request, answer)

        monkeypatch.setenv("UMLFS_PURE", "1")  # so that all come by there
        monkeypatch.setattr(FuseSession, "handle", counted)

    def clear(self) -> None:
        self._by_filesystem.clear()

    def of(self, filesystem: Filesystem) -> Counter[int]:
        counts = self._by_filesystem.get(id(filesystem), Counter())
        return Counter({Opcode(number): count for number, count in counts.items() if number not in UNASKED})


def _filesystem(machine: Machine, tag: str) -> Filesystem:
    found = next(each for each in machine.stores if each.name == f"virtio-fs {tag}")
    assert isinstance(found, VirtioFs)
    return found.session.filesystem


@pytest.mark.kernels
async def test_requests_for_each_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the snapshot root and of a mount. The kernel's own at least: a chown and a write look for a capability, tar
    sets owner, mode and times one by one, and looks at a file again when it has read it. GNU ls asks for attributes,
    each version for others."""
    tree = tmp_path / "tree/below"
    tree.mkdir(parents=True)
    for number in range(FILES):
        (tree / f"file {number}").write_bytes(b"content" * number)
    counts = Counts(monkeypatch)
    monkeypatch.setitem(LIFETIMES, Cache.AUTO, LIFETIMES[Cache.ALWAYS])  # on a slow machine a second is over soon
    cold = "echo 3 >/proc/sys/vm/drop_caches"
    jobs = [
        ("root", f"{cold}; busybox ls -lR {tree}", 1.2),
        ("root", f"{cold}; tar cf - {tree} | cat", 2.2),
        ("root", f"tar cf - {tree} | cat; busybox ls -lR {tree}", 0),
        ("mount0", f"tar cf - -C {tree}/.. below | tar xf - -C /mnt", 11),
        ("mount0", f"{cold}; find /mnt", 0.1),
        ("mount0", f"{cold}; busybox ls -lR /mnt", 0.1),
        ("mount0", f"{cold}; cat /mnt/below/*", 3.2),
        ("mount0", f"{cold}; ls /mnt/below; rm -rf /mnt/below", 1.5),
    ]
    target = tmp_path / "target"
    target.mkdir()
    async with Machine(Options(mounts=[HostMount("/mnt", str(target))])) as machine:
        for tag, job, limit in jobs:
            counts.clear()
            started = machine.start(
                ["sh", "-c", job],
                stdout=Collector(1 << 20),
                stderr=Collector(1 << 20),
                environment={"PATH": DEFAULT_PATH},
            )
            assert await started.wait() == 0
            found = counts.of(_filesystem(machine, tag))
            assert found.total() <= FILES * limit + BASE, f"{job}: {dict(found)}"
    assert not list(target.iterdir())
