"""Requests of a mount about the space that files take: holes, room in advance, copies."""

from __future__ import annotations

import errno
from typing import Any

from umlfs.mount.adapter import Adapter, File
from umlfs.mount.libfuse import Operation, Request
from umlfs.mount.requests import Requests


class SpaceOperations:
    """Those of one mount."""

    def __init__(self, adapter: Adapter, requests: Requests) -> None:
        self._adapter = adapter
        self._requests = requests

    def for_libfuse(self) -> dict[str, Operation]:
        """What `libfuse.added` takes."""
        operations: dict[str, Operation] = {"fallocate": self._fallocate, "copy_file_range": self._copy_file_range}
        if not self._adapter.fs.traits.writeback:
            operations["lseek"] = self._lseek  # it would know nothing of what the kernel has yet to write
        return operations

    def _fallocate(self, pointer: int, ino: int, mode: int, offset: int, length: int, info: Any) -> None:
        async def allocate(request: Request, file: File) -> None:
            await self._adapter.fs.fallocate(ino, file.handle, mode, offset, length)
            request.fail(0)

        self._requests.start(pointer, info.contents.fh, allocate)

    def _lseek(self, pointer: int, ino: int, offset: int, whence: int, info: Any) -> None:
        async def seek(request: Request, file: File) -> None:
            request.answer_place(await self._adapter.fs.lseek(ino, file.handle, offset, whence))

        self._requests.start(pointer, info.contents.fh, seek)

    def _copy_file_range(
        self, pointer: int, ino: int, offset: int, info: Any, to: int, to_offset: int, to_info: Any, length: int, _: int
    ) -> None:
        to_fh = to_info.contents.fh

        async def copy(request: Request, file: File) -> None:
            target = self._adapter.open_files.get(to_fh)
            if target is None:
                raise OSError(errno.EBADF, "the file is not open")
            copied = await self._adapter.fs.copy_file_range(
                ino, file.handle, offset, to, target.handle, to_offset, length
            )
            request.answer_count(copied)

        self._requests.start(pointer, info.contents.fh, copy)
