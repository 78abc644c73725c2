"""What serves a mount: the requests of its kernel, by one way or another."""

from __future__ import annotations

from typing import Protocol

from umlfs.filesystem import Filesystem
from umlfs.fuse.announcer import Announcer
from umlfs.mount.notifier import Kernel


class Server(Protocol):
    """Of one mount. `init`, then `attach`, then `serve`, then `end`, then `close`."""

    @property
    def filesystem(self) -> Filesystem:
        """What is served."""

    @property
    def requests(self) -> int:
        """How many requests were answered; forgets need no answer and are not counted."""

    def init(self, path: str, options: set[str]) -> None:
        """Mount at `path`. RuntimeError; libfuse says why on standard error."""

    def attach(self, filesystem: Filesystem) -> None:
        """Serve this one, which is told of the kernel that there is."""

    @property
    def kernel(self) -> Kernel:
        """The way to tell the kernel of changes, once it is mounted."""

    def announced_by(self, pid: int) -> Announcer:
        """What answers the announcer from now on, which is the process `pid`: its requests change nothing."""

    def announcer_ended(self) -> None:
        """Its number may be another process's from now on."""

    async def serve(self) -> None:
        """Answer until it is unmounted. OSError."""

    def end_locks(self) -> None:
        """Nobody is to wait for a lock any longer, nor to begin."""

    def terminate(self) -> None:
        """Have `serve` return soon, if it is unmounted already."""

    def close(self) -> None:
        """Give up the descriptor of what is unmounted; nobody uses `kernel` any more."""
