"""The kernel's modules in a guest: where it looks for them, and what has it look."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from runtime.guest.cpio import CpioEntry

TAG: Final = "modules"
"""Of the virtio-fs device with the directory of the kernel's modules."""
PLACE: Final = "/lib/modules"
OPEN: Final = frozenset({"fuse", "net/tun"})
"""Devices for everybody, as udev has them."""


class ModuleNode(NamedTuple):
    """A device whose first user has the kernel load its module."""

    name: str
    """Below /dev."""
    kind: int
    """S_IFCHR or S_IFBLK."""
    number: int

    def entry(self, below: bytes) -> CpioEntry:
        """In an archive, in the directory `below`."""
        mode = 0o666 if self.name in OPEN else 0o600
        return CpioEntry(below + b"/" + self.name.encode(), self.kind | mode, device=self.number)


class KernelModules(NamedTuple):
    """The modules that a guest finds."""

    version: str
    """`uname -r`"""
    nodes: Sequence[ModuleNode] = ()

    def script(self, here: str) -> str:
        """Has the guest mount them where they belong, if its root has a /lib. Without modprobe it gets busybox's."""
        return _SCRIPT.format(place=f"/root{PLACE}/{self.version}", tag=TAG, here=here)


_SCRIPT: Final = """\
have_modules() {{
    [ -d /root/lib ] || return 0
    [ -d {place} ] || mkdir -p {place} 2>/dev/null || return 0
    echo "{tag} {place} virtiofs ro 0 0" >>{here}/fstab
    [ -e /root/sbin/modprobe ] || echo {here}/modprobe >/proc/sys/kernel/modprobe
}}
have_modules
"""


def nodes(directory: Path, loaded: Collection[str]) -> Iterator[ModuleNode]:
    """The devices in `directory`'s modules.devname, which depmod makes, but for those of modules `loaded`."""
    try:
        lines = (directory / "modules.devname").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        module, _, rest = line.partition(" ")
        name, _, number = rest.partition(" ")
        kind = {"c": stat.S_IFCHR, "b": stat.S_IFBLK}.get(number[:1])
        major, _, minor = number[1:].partition(":")
        if kind is not None and major.isdigit() and minor.isdigit() and module not in loaded and _is_safe(name):
            yield ModuleNode(name, kind, os.makedev(int(major), int(minor)))


def _is_safe(name: str) -> bool:
    return bool(name) and all(part not in ("", ".", "..") for part in name.split("/"))
