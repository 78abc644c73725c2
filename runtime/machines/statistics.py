"""What a machine's devices have done, for people and for programs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict

from runtime.machines.control_wire import Message
from umlfs.virtio.device import VirtioDevice


def lines(devices: Iterable[VirtioDevice]) -> list[str]:
    """A line for each device."""
    return [_line(device) for device in devices]


def _line(device: VirtioDevice) -> str:
    it = device.statistics
    return (
        f"{device.name}: {it.requests} requests, {it.read_bytes} bytes read, {it.written_bytes} written, "
        f"{it.mean * 1e6:.0f} us each, {it.longest * 1e6:.0f} us the longest"
    )


def messages(devices: Iterable[VirtioDevice]) -> list[Message]:
    """A table for each device: its name as `device`, and the fields of `Statistics`."""
    return [{"device": device.name, **asdict(device.statistics)} for device in devices]
