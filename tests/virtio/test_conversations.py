"""The back end against front ends that say anything, in any order, with any descriptors."""

from __future__ import annotations

import logging
import os
import socket
import struct

import hypothesis.strategies as st
import pytest
import trio
from hypothesis import given

from tests.contract.providers import OneFile
from tests.virtio import frontend as fe
from tests.virtio.frontend import GUEST, SIZE, USER, Guest
from umlfs.virtio.fs import VirtioFs
from umlfs.virtio.vhost_user import Backend

_INDEX = st.integers(0, 3)
_NUMBER = st.one_of(st.sampled_from([0, 1, 2, 256, 1024, 1025]), st.integers(0, 2**32 - 1))
_ADDRESS = st.one_of(
    st.integers(0, 1 << 16).map(lambda offset: GUEST + USER + offset * 16),
    st.sampled_from([GUEST, GUEST + USER + SIZE - 16, 0, 2**64 - 16]),
)
_LENGTH = st.sampled_from([SIZE, 4096, 0, 2**63, 2**64 - 1])
_REGION = st.tuples(
    _ADDRESS, _LENGTH, st.sampled_from([GUEST + USER, 0]), st.sampled_from([GUEST, 0, 4095, 2**64 - 4096])
)

Said = tuple[int, bytes, list[str]]
_DESCRIPTORS = st.lists(st.sampled_from(["memory", "kick", "call", "directory"]), max_size=3)


def _saying(request: int, payload: st.SearchStrategy[bytes]) -> st.SearchStrategy[Said]:
    return st.tuples(st.just(request), payload, _DESCRIPTORS)


_GOOD_TABLE = Guest.table((GUEST, SIZE, GUEST + USER, GUEST))
_SAID = st.one_of(
    st.just((fe.SET_MEM_TABLE, _GOOD_TABLE, ["memory"])),
    st.builds(lambda index: (fe.SET_VRING_KICK, struct.pack("<Q", index), ["kick"]), _INDEX),
    st.builds(lambda index: (fe.SET_VRING_CALL, struct.pack("<Q", index), ["call"]), _INDEX),
    _saying(fe.SET_VRING_NUM, st.builds(struct.Struct("<II").pack, _INDEX, _NUMBER)),
    _saying(fe.SET_VRING_BASE, st.builds(struct.Struct("<II").pack, _INDEX, _NUMBER)),
    _saying(fe.GET_VRING_BASE, st.builds(struct.Struct("<II").pack, _INDEX, _NUMBER)),
    _saying(fe.SET_VRING_ENABLE, st.builds(struct.Struct("<II").pack, _INDEX, st.integers(0, 1))),
    _saying(fe.SET_VRING_ADDR, st.builds(struct.Struct("<IIQQQQ").pack, _INDEX, _INDEX, *[_ADDRESS] * 4)),
    _saying(fe.SET_MEM_TABLE, st.lists(_REGION, max_size=3).map(lambda regions: Guest.table(*regions))),
    _saying(
        fe.GET_CONFIG, st.builds(lambda o, n: struct.pack("<III", o, n, 0) + bytes(n), _NUMBER, st.integers(0, 60))
    ),
    st.tuples(st.integers(0, 42), st.binary(max_size=80), _DESCRIPTORS),
)


async def _say(said: list[Said], memory: bytes) -> None:
    theirs, ours = socket.socketpair()
    guest = Guest(theirs, 2, 256)
    guest.memory[: len(memory)] = memory
    directory = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    things = {
        "memory": guest.file,
        "kick": guest.kicks[1],
        "call": guest._theirs[1].fileno(),
        "directory": directory,
    }
    os.eventfd_write(guest.kicks[1], 1)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Backend(VirtioFs("tag", OneFile()), ours).run)
            for request, payload, descriptors in said:
                try:
                    await guest.request(request, payload, [things[name] for name in descriptors])
                except (EOFError, BrokenPipeError, ConnectionResetError):
                    break
            guest.socket.shutdown(socket.SHUT_WR)
    finally:
        guest.close()
        os.close(directory)


@pytest.mark.logs_warnings
@given(st.lists(_SAID, max_size=25), st.binary(max_size=4096))
def test_any_conversation_comes_to_an_end(said: list[Said], memory: bytes) -> None:
    """Nothing escapes from `Backend.run`; what counts as a bug of ours is logged as one, and there is none."""

    class Bugs(logging.Handler):
        found: list[str] = []  # noqa: RUF012

        def emit(self, record: logging.LogRecord) -> None:
            if record.exc_info:
                self.found.append(record.getMessage())

    handler = Bugs()
    logger = logging.getLogger("umlfs.serve")
    logger.addHandler(handler)
    try:
        trio.run(_say, said, memory)
    finally:
        logger.removeHandler(handler)
    assert not handler.found
