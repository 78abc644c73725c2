"""Ways from a `FuseClient` straight to a `FuseSession`, without a device."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

import pytest

from umlfs.fuse.session import FuseSession


def scattered(data: bytearray | memoryview, cuts: Sequence[int]) -> list[memoryview]:
    """Views of `data`, cut at these places."""
    edges = [0, *sorted({cut for cut in cuts if 0 < cut < len(data)}), len(data)]
    return [memoryview(data)[start:end] for start, end in itertools.pairwise(edges) if end > start]


async def answered(session: FuseSession, readable: list[memoryview], writable: list[memoryview]) -> int:
    """As whoever serves a ring does it: at once, where that can be."""
    if session.quick_answer is not None and (written := session.quick_answer(readable, writable)) >= 0:
        return written
    return await session.handle(readable, writable)


class Direct:
    """Hands requests to a session as buffers of the sizes that a kernel uses."""

    def __init__(self, session: FuseSession) -> None:
        self.session = session

    def _buffers(self, sizes: Sequence[int]) -> tuple[bytearray, list[memoryview]]:
        data = bytearray(b"\xaa" * sum(sizes))
        cuts = [sum(sizes[:index]) for index in range(len(sizes))]
        return data, scattered(data, cuts)

    async def transact(self, request: Sequence[bytes], room: Sequence[int]) -> bytes:
        source, readable = self._buffers([len(part) for part in request])
        source[:] = b"".join(request)
        data, writable = self._buffers(room)
        written = await answered(self.session, readable, writable)
        assert data[written:] == b"\xaa" * (len(data) - written), "written beyond the answer"
        return bytes(data[:written])

    def post(self, request: Sequence[bytes]) -> None:
        coroutine = self.session.handle([memoryview(part) for part in request], [])
        with pytest.raises(StopIteration) as done:
            coroutine.send(None)
        assert done.value.value == 0


class Shredded(Direct):
    """The same in buffers of any size, cut where nobody would cut."""

    def __init__(self, session: FuseSession, seed: int = 0) -> None:
        super().__init__(session)
        self._random = random.Random(seed)

    def _buffers(self, sizes: Sequence[int]) -> tuple[bytearray, list[memoryview]]:
        data = bytearray(b"\xaa" * sum(sizes))
        cuts = [self._random.randrange(len(data) or 1) for _ in range(self._random.randrange(6))]
        return data, scattered(data, cuts)
