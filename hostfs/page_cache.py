"""Whether directories of a disk are in the host's caches, judged by those that were read last.

Nothing tells beforehand whether reading a directory will wait for the disk. A thread can wait while the loop goes on,
but costs ten times as much as reading what is in memory. So once several in a row did not touch the disk, the next are
read on the loop, up to the first that turns out to come from the disk.
"""

from __future__ import annotations

import resource
from typing import Final

STREAK: Final = 4
"""So many directories in a row without the disk, and it is trusted that the next is in memory."""
STREAK_MAX: Final = 256
"""Each time that this was wrong, it takes twice as many; up to so many."""


class CacheGuess:
    """Whether the next directory of one device is in the page cache. For devices that are read from the disk by the
    thread that asks for them."""

    def __init__(self) -> None:
        self._streak = 0
        self._needed = STREAK

    @property
    def trusted(self) -> bool:
        """The next directory may be read on the loop."""
        return self._streak >= self._needed

    def saw(self, from_disk: bool) -> None:
        """What came of the last directory, or of looking at what is in it."""
        if not from_disk:
            self._streak += 1
            return
        if self.trusted:
            self._needed = min(2 * self._needed, STREAK_MAX)
        self._streak = 0


def disk_reads() -> int:
    """A number that grows when this thread reads from a disk."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_inblock
