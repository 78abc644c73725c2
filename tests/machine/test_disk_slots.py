"""Disks that come and go, with an agent that is not there."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio

from runtime.machine.disk import Ubd
from runtime.machine.disk_slots import IN_USE, DiskSlots
from runtime.machine.script import ScriptError
from umlfs.block import BlockDevice
from umlfs.errors import UmlError
from umlfs.ubd import Spec, parse
from umlfs.ubd.device import open_ubd
from umlfs.virtio.disk_slot import DiskSlot


@dataclass
class Agent:
    """What it was asked, and what it refuses."""

    refuses: dict[str, UmlError] = field(default_factory=dict)
    asked: list[list[str]] = field(default_factory=list)

    async def run(self, script: str, arguments: Sequence[str]) -> None:
        action = script.splitlines()[-1].split()[0]
        self.asked.append([action, *arguments])
        if action in self.refuses:
            raise self.refuses[action]


def capacity(slot: DiskSlot) -> int:
    return int.from_bytes(slot.config()[:8], "little")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image"
    path.write_bytes(bytes(8192))
    return path


async def test_what_the_agent_is_asked(image: Path) -> None:
    slot, agent, ubds = DiskSlot("slot0"), Agent(), list[Ubd]()
    slots = DiskSlots([(slot, 7)], ubds, agent.run)
    spec = parse(f"ubd3r={image}")
    await slots.plug(spec)
    assert (slots.at(3), slots.specs, slots.free, slots.writes) == (spec, [spec], [], False)
    assert capacity(slot) == 16
    for same in (spec, parse(f"ubd4={image}")):
        with pytest.raises((OSError, UmlError), match=r"already configured|no slot for a disk is left"):
            await slots.plug(same)
    await slots.unplug(3)
    assert (slots.at(3), slots.free, ubds) == (None, [slot], [])
    assert agent.asked == [["plug", "7", "ubdd", "16", "ro", "0"], ["check", "7", "ubdd"], ["unplug", "7", "ubdd"]]
    with pytest.raises(OSError, match="Device doesn't exist"):
        await slots.unplug(3)
    await slots.plug(parse(f"ubd3={image}"))
    assert slots.writes
    await ubds[0].device.close()


@pytest.mark.parametrize("when", ["check", "unplug"])
async def test_in_use(image: Path, when: str) -> None:
    """The guest keeps it, though it was opened after the first look."""
    slot, agent, ubds = DiskSlot("slot0"), Agent({when: ScriptError("mounted on /x", IN_USE)}), list[Ubd]()
    slots = DiskSlots([(slot, 7)], ubds, agent.run)
    await slots.plug(parse(f"ubd3={image}"))
    with pytest.raises(OSError, match="Device is currently open: mounted on /x") as caught:
        await slots.unplug(3)
    assert caught.value.errno == errno.EBUSY
    assert (capacity(slot), slots.free) == (16, [])
    agent.refuses = {}
    await slots.unplug(3)


async def test_two_at_once(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second is refused while the first is still being opened."""
    opening, go = trio.Event(), trio.Event()

    async def slowly(spec: Spec) -> BlockDevice:
        opening.set()
        await go.wait()
        return await open_ubd(spec)

    monkeypatch.setattr("umlfs.ubd.device.open_ubd", slowly)
    slots = DiskSlots([(DiskSlot("slot0"), 7), (DiskSlot("slot1"), 8)], [], Agent().run)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(slots.plug, parse(f"ubd3={image}"))
        await opening.wait()
        with pytest.raises(OSError, match="already configured"):
            await slots.plug(parse(f"ubd3r={image}"))
        go.set()
    assert [str(spec) for spec in slots.specs] == [f"ubd3={image}"]
    await slots.unplug(3)


async def test_a_guest_that_does_not_take_it(image: Path) -> None:
    slot = DiskSlot("slot0")
    slots = DiskSlots([(slot, 7)], [], Agent({"plug": ScriptError("no disk", 1)}).run)
    for _ in range(2):  # nothing is left of it: no lock either
        with pytest.raises(UmlError, match="no disk"):
            await slots.plug(parse(f"ubd3={image}"))
        assert (slots.specs, slots.free, capacity(slot)) == ([], [slot], 0)
    with pytest.raises(UmlError, match="No such file"):
        await slots.plug(parse("ubd3=/nowhere"))
    assert slots.free == [slot]
