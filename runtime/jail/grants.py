"""What a machine is given of the host: all that its kernel process may reach."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from umlfs.ubd.native_files import NativeFiles

OWN: Final = "own"
"""Of the machine's directory: where the kernel puts its pid file and its management console."""


@dataclass(slots=True)
class Grants:
    """Whatever gives a machine something that its kernel opens by itself, or inherits, adds it here.

    Paths are absolute, and the kernel finds them where they are on the host. What lies in the machine's own directory
    (the sockets of its devices, its initramfs) needs no grant.
    """

    read: list[Path] = field(default_factory=list)
    """Files and directories that it may read."""
    sockets: list[Path] = field(default_factory=list)
    """Unix sockets that it may connect to."""
    write: list[Path] = field(default_factory=list)
    """Those that it may read and change; of a directory all that is in it."""
    execute: list[Path] = field(default_factory=list)
    """Programs and libraries that it may execute, besides its own."""
    descriptors: list[int] = field(default_factory=list)
    """Descriptors that it inherits under their numbers."""
    devices: list[Path] = field(default_factory=list)
    """Devices that it may open, change, and give requests of their own to."""
    network: tuple[int, ...] = ()
    """Descriptors of namespaces that it runs in: of users, where that is not the caller's, and then of the network.
    Without them it has no network at all."""
    speaks: bool = False
    """It is no kernel, but a program that speaks on the network which it runs in."""
    file_size: int = 0
    """Bytes that one file which it writes may come to have."""
    keep_user: str = ""
    """Why it must be the caller, and no user that owns nothing; empty if it need not."""
    hostfs: bool = False
    """Its own hostfs was asked for: the driver is not kept from starting."""
    iomem: bool = False
    """Its memory-mapped files were asked for, likewise."""

    def add_files(self, files: NativeFiles) -> None:
        """The files of one disk of the kernel's own driver."""
        self.read += files.read
        self.write += files.write
        self.file_size = max(self.file_size, files.size_max)
