"""What a machine is made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from runtime import guest
from runtime.jail import layers
from runtime.jail.layers import Mode
from runtime.kernels.execution import USUAL, Execution
from runtime.process.memory import DEFAULT

if TYPE_CHECKING:
    from runtime.machine.disk import Disk, RootDisk
    from runtime.machine.equipment import HostMount
    from runtime.mconsole.wire import Notification
    from runtime.network.contract import Network
    from umlfs.sources import Source
    from umlfs.ubd import Spec

BOOT_SECONDS: Final = 60.0
"""How long a guest may take until its agent answers. A hundred times what it takes."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a machine is made of."""

    root: Source | str = "hostfs:/"
    """The source of the root filesystem, or its word."""
    kernel_hostfs: bool = False
    """The guest's kernel reads the root by its own hostfs, not through us (`runtime.machine.kernel_hostfs`)."""
    root_disk: RootDisk | None = None
    """One of `ubds` holds the root instead."""
    root_flags: str = ""
    """How to mount the root in place of `rw`; what the guest does later is its own matter."""
    writable: bool = False
    """Changes to the root go through to the source; else they go to the guest's memory and are gone with it."""
    mounts: Sequence[HostMount] = ()
    owner: tuple[int, int] = (0, 0)
    """The uid and gid in the guest of what belongs to the caller here, unless that is root."""
    ubds: Sequence[Spec] = ()
    """Disks, as the kernel's command line names them (`umlfs.ubd.parse`)."""
    native_ubd: bool = False
    """The kernel's own ubd driver takes the disks."""
    disks: Sequence[Disk] = ()
    """Further disks: block devices of any kind, open already."""
    program: bytes | None = None
    """A static program that is the whole guest, in the place of a root: its init, and the agent that takes jobs from
    the control filesystem (`runtime.machine.control`). It loads the modules whose paths are the lines of /modules."""
    modules: Sequence[str] = ()
    """Further kernel modules for `program` to load."""
    initrd: str = ""
    """The file of an initrd that is the whole guest, in the place of a root and an agent: it runs no commands of ours,
    and gets devices of the kernel's own alone."""
    arguments: Sequence[str] = ()
    """Further words for the kernel's command line."""
    memory: int = DEFAULT
    """In bytes."""
    kernel: str | None = None
    """The kernel's file or name; by default the newest that there is."""
    terminal: bool = False
    """Make a terminal for a command to run on."""
    terminals: Sequence[int] = ()
    """Lines of the guest (`con` numbers) to be made terminals for commands."""
    descriptors: Sequence[int] = ()
    """Passed to the kernel under their numbers, for words in `arguments` that name them."""
    jail: Mode = layers.DEFAULT
    """What keeps the kernel process from this host."""
    execution: Execution = USUAL
    """How the kernel runs its guest."""
    lock_modules: bool = False
    """The guest's kernel takes no more modules once it is up: not even of the guest's root. A guest that is a `program`
    sees to that by itself."""
    init: guest.Init | None = None
    """The machine stays up: what the guest's process 1 becomes. Commands then run side by side."""
    slots: int = 0
    """How many further filesystems can come while the guest runs (`Machine.slots`)."""
    disk_slots: int = 0
    """How many further disks can come (`Machine.disk_slots`)."""
    networks: Sequence[Network] = ()
    """What its network cards are attached to, one each."""
    name: str = "umlfs"
    """The guest's host name."""
    boot_seconds: float = BOOT_SECONDS
    on_started: Callable[[int], None] | None = field(default=None, compare=False)
    """Called with the number of the kernel's process when that has just been started."""
    on_log: Callable[[bytes], None] | None = field(default=None, compare=False)
    """Called with each line of the kernel's log."""
    on_network: Callable[[str], None] | None = field(default=None, compare=False)
    """Called with what befalls its networks, a line each."""
    on_notification: Callable[[Notification], None] | None = field(default=None, compare=False)
    """Called with what the kernel tells of itself: that it boots, that it panics."""
