"""Who owns what: owners shown otherwise than the host has them.

A `Mapping` translates between the consumer's numbers and the host's. Where the host's has no counterpart, the
consumer sees the overflow number; where the consumer's has none, it may not be used (EINVAL), as in a user
namespace of the kernel.
"""

from __future__ import annotations

import dataclasses
import errno
import os
from dataclasses import dataclass
from typing import Final

from umlfs.filesystem import (
    NO_HANDLE,
    Attr,
    Caller,
    DirSink,
    Entry,
    Filesystem,
    Opened,
    SetAttr,
)
from umlfs.views.view import View

OVERFLOW: Final = 65534
"""What the kernel shows for an owner that has no number here."""
ID_MAX: Final = 0xFFFF_FFFE


@dataclass(frozen=True, slots=True)
class Range:
    """`count` numbers from `guest` on are the host's from `host` on."""

    guest: int
    host: int
    count: int


@dataclass(frozen=True, slots=True)
class Mapping:
    """How owners are translated."""

    ranges: tuple[Range, ...] = ()
    """None: all numbers are the same on both sides."""
    uid: int | None = None
    """Everything seems to belong to this user."""
    gid: int | None = None
    squash: bool = False
    """Whoever creates something, and whomever it is given to: it belongs to the user who serves."""

    def shown(self, number: int) -> int:
        """The consumer's number for one of the host's."""
        for one in self.ranges:
            if one.host <= number < one.host + one.count:
                return number - one.host + one.guest
        return OVERFLOW if self.ranges else number

    def meant(self, number: int) -> int:
        """The host's number for one of the consumer's. EINVAL if it has none."""
        for one in self.ranges:
            if one.guest <= number < one.guest + one.count:
                return number - one.guest + one.host
        if self.ranges:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return number


class Identity(View):
    """`inner` with its owners translated."""

    def __init__(self, inner: Filesystem, mapping: Mapping) -> None:
        super().__init__(inner)
        self._mapping = mapping
        self._server = Caller(os.geteuid(), os.getegid())

    def _attr(self, attr: Attr) -> Attr:
        mapping = self._mapping
        attr.uid = mapping.shown(attr.uid) if mapping.uid is None else mapping.uid
        attr.gid = mapping.shown(attr.gid) if mapping.gid is None else mapping.gid
        return attr

    def _entry(self, entry: Entry) -> Entry:
        if entry.ino:
            self._attr(entry.attr)
        return entry

    def _creator(self, caller: Caller) -> Caller:
        """The uid and gid that a new file of `caller` gets on the host."""
        mapping = self._mapping
        if mapping.squash:
            return self._server
        uid = self._server.uid if mapping.uid is not None else mapping.meant(caller.uid)
        gid = self._server.gid if mapping.gid is not None else mapping.meant(caller.gid)
        return Caller(uid, gid, caller.pid)

    def _owner(self, number: int | None, seeming: int | None) -> int | None:
        """The owner on the host when the consumer gives a file to `number`; None leaves the owner as it is."""
        if number is None or self._mapping.squash:
            return None
        if seeming is None:
            return self._mapping.meant(number)
        if number != seeming:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        return None

    async def lookup(self, parent: int, name: bytes) -> Entry:
        return self._entry(await self.inner.lookup(parent, name))

    async def mknod(self, parent: int, name: bytes, mode: int, rdev: int, umask: int, caller: Caller) -> Entry:
        return self._entry(await self.inner.mknod(parent, name, mode, rdev, umask, self._creator(caller)))

    async def mkdir(self, parent: int, name: bytes, mode: int, umask: int, caller: Caller) -> Entry:
        return self._entry(await self.inner.mkdir(parent, name, mode, umask, self._creator(caller)))

    async def symlink(self, parent: int, name: bytes, target: bytes, caller: Caller) -> Entry:
        return self._entry(await self.inner.symlink(parent, name, target, self._creator(caller)))

    async def link(self, ino: int, new_parent: int, new_name: bytes) -> Entry:
        return self._entry(await self.inner.link(ino, new_parent, new_name))

    async def create(
        self, parent: int, name: bytes, mode: int, flags: int, umask: int, caller: Caller
    ) -> tuple[Entry, Opened]:
        entry, opened = await self.inner.create(parent, name, mode, flags, umask, self._creator(caller))
        return self._entry(entry), opened

    async def getattr(self, ino: int, handle: int = NO_HANDLE) -> tuple[Attr, int]:
        attr, valid = await self.inner.getattr(ino, handle)
        return self._attr(attr), valid

    async def setattr(
        self, ino: int, changes: SetAttr, handle: int = NO_HANDLE, caller: Caller | None = None
    ) -> tuple[Attr, int]:
        mapping = self._mapping
        changes = dataclasses.replace(
            changes, uid=self._owner(changes.uid, mapping.uid), gid=self._owner(changes.gid, mapping.gid)
        )
        attr, valid = await self.inner.setattr(ino, changes, handle, caller and self._creator(caller))
        return self._attr(attr), valid

    async def readdir(self, ino: int, handle: int, offset: int, add: DirSink, plus: bool = False) -> None:
        def translated(name: bytes, offset: int, ino: int, mode: int, entry: Entry | None) -> bool:
            return add(name, offset, ino, mode, entry and self._entry(entry))

        await self.inner.readdir(ino, handle, offset, translated if plus else add, plus)
