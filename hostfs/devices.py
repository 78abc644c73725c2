"""The filesystems of the host that lie within an export, by device number: what kind each is."""

from __future__ import annotations

import os
from typing import Final

from hostfs.kinds import is_memory, is_pseudo, is_read_by_asker
from hostfs.page_cache import CacheGuess

_SHIFT: Final = 48
_INO_MASK: Final = (1 << 64) - 1


class Devices:
    """What is known of each device that was met. One is known once `examine` has looked at it."""

    def __init__(self, root: int) -> None:
        """`root` is the device number of the export's root."""
        self.root = root
        self.pseudo: dict[int, bool] = {}
        """Whether the host's kernel makes the device up, such as proc: those are shown empty."""
        self.in_memory: set[int] = set()
        """Devices of filesystems without a disk to wait for. (They cannot tell that they never wait.)"""
        self.guesses: dict[int, CacheGuess] = {}
        """Whether directories are in the host's page cache, of devices where it can be judged."""
        self._numbers = {root: 0}

    @property
    def several(self) -> bool:
        """Something of another device than the root's was shown."""
        return len(self._numbers) > 1

    def examine(self, fd: int) -> bool:
        """Get to know the device that `fd` is on; True if the host's kernel makes it up."""
        device = os.fstat(fd).st_dev
        if is_memory(fd):
            self.in_memory.add(device)
        elif is_read_by_asker(fd):
            self.guesses.setdefault(device, CacheGuess())
        pseudo = self.pseudo[device] = is_pseudo(fd)
        return pseudo

    def shown_ino(self, device: int, ino: int) -> int:
        """The st_ino to show: numbers of other devices than the root's are told apart by their high bits."""
        if device == self.root:
            return ino
        number = self._numbers.setdefault(device, len(self._numbers))
        return (ino ^ number << _SHIFT) & _INO_MASK
