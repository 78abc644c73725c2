"""Copying what a file has beside its contents: owner, mode, times, extended attributes; and what of it was lost."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass, field
from typing import Final

from runtime.inspect.paths import Node
from umlfs.filesystem import Attr, Filesystem, SetAttr

REFUSED: Final = frozenset({errno.EPERM, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EOVERFLOW})
"""What a destination answers that cannot keep owners, devices or attributes."""
_UNKEPT: Final = REFUSED | {errno.ENODATA, errno.E2BIG, errno.ENOSPC, errno.ERANGE}
"""What extended attributes may fail with."""
_SET_ID: Final = stat.S_ISUID | stat.S_ISGID


@dataclass(slots=True)
class CopyReport:
    """What a copy could not keep, and what it could not copy."""

    copied: int = 0
    """Nodes of any type."""
    size: int = 0
    """Bytes of contents."""
    owners_lost: int = 0
    attributes_lost: dict[str, int] = field(default_factory=dict)
    """Extended attributes that the target did not take, by name: of how many files."""
    skipped: list[str] = field(default_factory=list)
    """Why each node that is missing at the destination is."""


class AttributeCopier:
    """Gives copies in `target` what their originals in `source` have."""

    def __init__(
        self, source: Filesystem, target: Filesystem, owner: tuple[int, int] | None, report: CopyReport
    ) -> None:
        """With `owner`, a user and a group, everything belongs to them. `report` is added to."""
        self._source = source
        self._target = target
        self._owner = owner
        self._report = report
        self._refused: set[int] = set()
        """Users to whom the target gives nothing."""

    def owner_of(self, attr: Attr) -> tuple[int, int]:
        """The user and the group that the copy is to belong to."""
        return self._owner or (attr.uid, attr.gid)

    async def copy(self, node: Node, ino: int, made: Attr) -> None:
        """Owner, extended attributes, mode and times, in an order in which none undoes another: in one request where
        that can be. `made` is what the copy has."""
        names = await self._names(node)
        if not names and await self._all_at_once(node, ino, made):
            return
        kept = await self._give(node, ino, made)
        await self._extended(node, ino, names)
        mode = stat.S_IMODE(node.attr.mode)
        times = SetAttr(atime_ns=node.attr.atime_ns, mtime_ns=node.attr.mtime_ns)
        if not node.is_link:
            times.mode = mode if kept else mode & ~_SET_ID
        await self._set(ino, times)

    async def _all_at_once(self, node: Node, ino: int, made: Attr) -> bool:
        """Give the copy all that it is to have; False if it could not be given all. A set-id bit is none of that: it
        must not come before its owner."""
        attr, (uid, gid) = node.attr, self.owner_of(node.attr)
        if attr.mode & _SET_ID or uid in self._refused:
            return False
        changes = SetAttr(atime_ns=attr.atime_ns, mtime_ns=attr.mtime_ns)
        if not node.is_link:
            changes.mode = stat.S_IMODE(attr.mode)
        if (made.uid, made.gid) != (uid, gid):
            changes.uid, changes.gid = uid, gid
        try:
            found, _ = await self._target.setattr(ino, changes)
        except OSError as error:
            if error.errno not in REFUSED:
                raise
            return False
        return (found.uid, found.gid) == (uid, gid)

    async def _give(self, node: Node, ino: int, made: Attr) -> bool:
        """Whether it belongs to whom it should, or the target could make it so."""
        uid, gid = self.owner_of(node.attr)
        if (made.uid, made.gid) == (uid, gid):
            return True
        if uid not in self._refused and await self._given(ino, uid, gid):
            return True
        if made.uid != uid:
            self._refused.add(uid)
        self._report.owners_lost += 1
        return False

    async def _given(self, ino: int, uid: int, gid: int) -> bool:
        try:
            attr, _ = await self._target.setattr(ino, SetAttr(uid=uid, gid=gid))
        except OSError as error:
            if error.errno not in REFUSED:
                raise
            attr, _ = await self._target.getattr(ino)
        return (attr.uid, attr.gid) == (uid, gid)

    async def _set(self, ino: int, changes: SetAttr) -> None:
        try:
            await self._target.setattr(ino, changes)
        except OSError as error:
            if error.errno not in REFUSED:
                raise

    async def _names(self, node: Node) -> list[bytes]:
        """Those of the extended attributes."""
        if node.is_link:
            return []
        try:
            return await self._source.listxattr(node.ino)
        except OSError as error:
            if error.errno not in _UNKEPT:
                raise
            return []

    async def _extended(self, node: Node, ino: int, names: list[bytes]) -> None:
        for name in names:
            try:
                await self._target.setxattr(ino, name, await self._source.getxattr(node.ino, name))
            except OSError as error:
                if error.errno not in _UNKEPT:
                    raise
                lost = self._report.attributes_lost
                lost[os.fsdecode(name)] = lost.get(os.fsdecode(name), 0) + 1
