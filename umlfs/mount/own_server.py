"""A mount served by our own FUSE session, by the descriptor with which pyfuse3 has mounted it."""

from __future__ import annotations

import os
from collections.abc import Callable

import pyfuse3

from umlfs.filesystem import Filesystem
from umlfs.fuse.announcer import Announcer
from umlfs.mount.channel import Channel
from umlfs.mount.session import MountSession
from umlfs.wire import fuse as wire

DEVICE = "/dev/fuse"


class OwnServer:
    """A `Server`. The answers are those that guests get, compiled ones where there are any."""

    def __init__(self, filesystem: Filesystem, status: Callable[[int], bytes]) -> None:
        """`status` as of `MountSession`."""
        self.filesystem = filesystem
        self._status = status
        self._session: MountSession | None = None
        self._channel: Channel | None = None
        self._descriptor = -1

    @property
    def requests(self) -> int:
        return self._serving.statistics.requests

    @property
    def _serving(self) -> MountSession:
        assert self._session is not None
        return self._session

    @property
    def kernel(self) -> OwnServer:
        return self

    def init(self, path: str, options: set[str]) -> None:
        before = _open_devices()
        pyfuse3.init(pyfuse3.Operations(), path, options)
        (self._descriptor,) = _open_devices() - before
        os.set_blocking(self._descriptor, False)

    def attach(self, filesystem: Filesystem) -> None:
        self.filesystem = filesystem
        self._session = MountSession(filesystem, self._status)
        self._channel = Channel(self._descriptor, self._session)

    def announced_by(self, pid: int) -> Announcer:
        return self._serving.announced_by(pid)

    def announcer_ended(self) -> None:
        self._serving.announcer_ended()

    async def serve(self) -> None:
        assert self._channel is not None
        await self._channel.serve()

    def end_locks(self) -> None:
        self._serving.end_locks()

    def terminate(self) -> None:
        assert self._channel is not None
        self._channel.terminate()

    def close(self) -> None:
        pyfuse3.close(unmount=False)

    # Telling the kernel -----------------------------------------------------------------------

    def name_changed(self, parent: int, name: bytes) -> None:
        os.write(self._descriptor, wire.name_changed_out(parent, name))

    def attributes_changed(self, ino: int) -> None:
        os.write(self._descriptor, wire.attributes_changed_out(ino))

    def contents_changed(self, ino: int) -> None:
        os.write(self._descriptor, wire.contents_changed_out(ino))


def _open_devices() -> set[int]:
    """The descriptors of this process that are /dev/fuse."""
    return {int(name) for name in os.listdir("/proc/self/fd") if _leads_to(name) == DEVICE}


def _leads_to(name: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{name}")
    except OSError:  # the one that listed them
        return ""
