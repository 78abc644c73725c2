"""A device that may be written to and forgets it all: changes over a device that stays as it is."""

from __future__ import annotations

import os
import tempfile

from umlfs.block import BlockDevice
from umlfs.blocks.file import HostFile
from umlfs.cow.device import CowDevice
from umlfs.cow.header import Header


class Scratch(CowDevice):
    """`backing`, which it owns, and what is written over it in a file without a name in the host's directory for
    temporary files. Nothing survives `close`, so a flush has nothing to do."""

    def __init__(self, backing: BlockDevice) -> None:
        """OSError if no temporary file can be made."""
        header = Header(b"/", 0, backing.size)
        with tempfile.TemporaryFile() as file:
            storage = HostFile(os.dup(file.fileno()))
        os.truncate(storage.fileno(), header.file_size)
        super().__init__(storage, header, backing)

    async def flush(self) -> None:
        """Does nothing."""

    async def close(self) -> None:
        """Forget all changes, and give up every resource, the backing device's too."""
        self._storage.close()
        self._bitmap.close()
        await self.backing.close()
