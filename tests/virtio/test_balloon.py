"""Memory that a guest does not use any more: the device alone, and a large machine."""

from __future__ import annotations

import mmap
import os
import time
from pathlib import Path

import pytest

from tests.machines.household import Household, household
from umlfs.host.syscalls import remove_pages
from umlfs.virtio.balloon import VirtioBalloon
from umlfs.virtio.virtqueue import Chain

PAGE = mmap.PAGESIZE


async def test_reported_pages_go_back() -> None:
    fd = os.memfd_create("guest")
    os.ftruncate(fd, 64 * PAGE)
    with mmap.mmap(fd, 64 * PAGE) as memory:
        memory[:] = b"x" * (64 * PAGE)
        before = os.fstat(fd).st_blocks
        balloon, view = VirtioBalloon(), memoryview(memory)
        pieces = [view[8 * PAGE : 24 * PAGE], view[32 * PAGE + 1 : 34 * PAGE]]
        assert await balloon.handle(2, Chain(0, [], pieces)) == 0
        assert balloon.given_back == 17 * PAGE
        assert (before - os.fstat(fd).st_blocks) * 512 == 17 * PAGE
        assert await balloon.handle(0, Chain(0, [view[:PAGE]], [])) == 0
        assert memory[8 * PAGE - 1] == memory[24 * PAGE] == memory[33 * PAGE - 1] == ord("x")
        assert (memory[8 * PAGE], memory[33 * PAGE]) == (0, 0)
        assert remove_pages(view[1:PAGE]) == 0
        for piece in pieces:
            piece.release()
        view.release()
    os.close(fd)


async def test_a_host_that_cannot_is_asked_once(tmp_path: Path) -> None:
    """A private mapping has nothing to give back."""
    with mmap.mmap(-1, PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        view = memoryview(memory)
        balloon = VirtioBalloon()
        for _ in range(2):
            assert await balloon.handle(2, Chain(0, [], [view])) == 0
        assert balloon.given_back == 0
        view.release()


@pytest.mark.guest
@pytest.mark.slow
def test_a_machine_larger_than_the_host() -> None:
    """It boots, costs what it touches, and gives back what it does not use any more."""
    host = os.sysconf("SC_PHYS_PAGES") * PAGE
    with household() as uml:
        done = uml.uml("boot", "-d", "--name", "big", "--init", "", "--mem", f"{host * 2 >> 20}M")
        assert done.returncode == 0, done.stderr
        assert b"a guest that touches more ends" in done.stderr
        uml.ok("exec", "big", "--", "dd", "if=/dev/zero", "of=/dev/shm/x", "bs=1M", "count=400", "status=none")
        most = used(uml)
        uml.ok("exec", "big", "--", "rm", "/dev/shm/x")
        deadline = time.monotonic() + 60
        while used(uml) > most - (300 << 20):
            assert time.monotonic() < deadline, (used(uml) >> 20, most >> 20)
            time.sleep(0.5)
        uml.ok("halt", "big")


def used(uml: Household) -> int:
    return int(uml.ps()[0]["used"])
