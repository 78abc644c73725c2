"""A virtio-fs device: FUSE requests in descriptor chains.

Defined in the Virtio specification 1.2, section 5.11 (file system device): queue 0 carries what needs no
answer (FORGET), queue 1 the requests. The configuration space is the tag, 36 bytes, and the number of request queues.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Final

from umlfs.errors import UsageError
from umlfs.filesystem import Filesystem
from umlfs.fuse.session import FuseSession
from umlfs.virtio.device import unheard
from umlfs.virtio.virtqueue import Chain

if TYPE_CHECKING:
    from umlfs.fuse.announcements import Announcements

DEVICE_ID: Final = 26
TAG_MAX: Final = 36

_CONFIG: Final = struct.Struct("<36sI")


class VirtioFs:
    """A `VirtioDevice` that serves `filesystem` under `tag`."""

    features = 0
    queues = 2

    def __init__(
        self,
        tag: str,
        filesystem: Filesystem,
        *,
        read_only: bool = False,
        lower_layer: bool = False,
        announcements: Announcements | None = None,
    ) -> None:
        """`tag` is what the guest mounts: at most 36 bytes; `lower_layer` and `announcements` as for `FuseSession`.
        UsageError if the tag is longer or empty."""
        encoded = tag.encode()
        if not 0 < len(encoded) <= TAG_MAX or b"\0" in encoded:
            raise UsageError(f"virtio-fs tag '{tag}' is not of 1 to {TAG_MAX} bytes", "choose a shorter name")
        self.name = f"virtio-fs {tag}"
        self.session = FuseSession(
            filesystem, read_only=read_only, lower_layer=lower_layer, announcements=announcements
        )
        self.lock_waits = self.session.lock_waits
        self.statistics = self.session.statistics
        self.on_config_change: Callable[[], None] = unheard
        self._tag = encoded
        self.at_once = self.session.quick_answer

    def config(self) -> bytes:
        return _CONFIG.pack(self._tag, 1)

    def write_config(self, offset: int, data: bytes) -> None:
        raise OSError(errno.EPERM, "the configuration of a virtio-fs device is read-only")

    def running(self) -> AbstractAsyncContextManager[None]:
        return self.session.filesystem.running()

    def handle(self, queue: int, chain: Chain) -> Coroutine[Any, Any, int]:
        return self.session.handle(chain.readable, chain.writable)

    def reset(self) -> None:
        self.session.disconnect()
