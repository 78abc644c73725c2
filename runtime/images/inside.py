"""Work on the filesystem in an image, by the guest's kernel and this host's programs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from runtime.command.throwaway import run
from runtime.images.streams import failed
from runtime.machine.disk import Disk
from runtime.machine.machine import Options
from umlfs.block import BlockDevice

NAME: Final = "image"
"""What the guest finds in /dev."""


async def in_guest(devices: BlockDevice | Mapping[str, BlockDevice], script: str, what: str) -> str:
    """Run a script of the shell in a guest that has `devices` by their names in /dev, a single one as /dev/image; what
    it said.

    UmlError, saying that `what` failed and why.
    """
    named = {NAME: devices} if isinstance(devices, BlockDevice) else devices
    options = Options(disks=[Disk(name, device) for name, device in named.items()])
    done = await run(["/bin/sh", "-ec", script], options, directory="/")
    if done.returncode:
        raise failed(what, done.stderr.decode(errors="replace").strip().splitlines(), "the guest's words are above")
    return done.stdout.decode(errors="replace")
