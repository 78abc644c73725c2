"""How a directory of the host is shared: what its consumer may change, and how long it may believe what it reads."""

from __future__ import annotations

import enum
import errno
from dataclasses import dataclass
from typing import Final

from umlfs.host.syscalls import failure

_SECOND: Final = 1_000_000_000


class Cache(enum.Enum):
    """How long the consumer may believe what it was told."""

    ALWAYS = "always"
    """For an hour: nobody else changes the directory, or it does not matter if somebody does."""
    AUTO = "auto"
    """For a second, and contents until size or mtime change."""
    NEVER = "never"
    """Not at all: every operation asks the host."""


LIFETIMES: Final = {Cache.ALWAYS: 3600 * _SECOND, Cache.AUTO: _SECOND, Cache.NEVER: 0}


@dataclass(slots=True)
class Settings:
    """What all parts of one `HostFilesystem` go by. They share one object, so a change of it holds for all."""

    cache: Cache
    read_only: bool
    stateless: bool
    """`open` answers ENOSYS: files are used without handles."""
    opens_directories: bool
    """`opendir` does not answer ENOSYS: it tells whether a directory may be read."""
    snapshot: bool = False
    """For one consumer's private use: a directory that we may not read is empty, so that it has one of its own."""
    locks: bool = False
    """Locks are taken on the host: others use the directory."""
    append: bool = False
    """What is written to a file that is opened goes to its end, wherever the consumer says."""

    @property
    def valid_ns(self) -> int:
        """How long (ns) an answer may be believed."""
        return LIFETIMES[self.cache]

    def check_writable(self) -> None:
        """EROFS unless changes are allowed."""
        if self.read_only:
            raise failure(errno.EROFS)
