"""An image's filesystem as an ordinary user of this host mounts it: they are its superuser."""

from __future__ import annotations

import os

from umlfs.filesystem import Caller, Entry, Filesystem, Opened
from umlfs.views.view import View


class Superuser(View):
    """`inner`, whose owners are those of another system. What this process's user makes belongs to its root."""

    def __init__(self, inner: Filesystem) -> None:
        super().__init__(inner)
        self.traits = inner.traits._replace(foreign=True)
        self._uid = os.geteuid()

    def _as_root(self, caller: Caller) -> Caller:
        return Caller(0, 0, caller.pid) if caller.uid == self._uid else caller

    async def mknod(self, parent: int, name: bytes, mode: int, rdev: int, umask: int, caller: Caller) -> Entry:
        return await self.inner.mknod(parent, name, mode, rdev, umask, self._as_root(caller))

    async def mkdir(self, parent: int, name: bytes, mode: int, umask: int, caller: Caller) -> Entry:
        return await self.inner.mkdir(parent, name, mode, umask, self._as_root(caller))

    async def symlink(self, parent: int, name: bytes, target: bytes, caller: Caller) -> Entry:
        return await self.inner.symlink(parent, name, target, self._as_root(caller))

    async def create(
        self, parent: int, name: bytes, mode: int, flags: int, umask: int, caller: Caller
    ) -> tuple[Entry, Opened]:
        return await self.inner.create(parent, name, mode, flags, umask, self._as_root(caller))
