"""Descriptors as streams: what they are given is left as it was."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from pathlib import Path

import pytest
import trio

from runtime.tty.streams import Collector, Descriptor, Literal, are_same, is_null
from umlfs.buffers import scatter


async def read(stream: Descriptor, *sizes: int) -> bytes:
    buffers = [bytearray(size) for size in sizes]
    count = await stream.read_into([memoryview(buffer) for buffer in buffers])
    return b"".join(buffers)[:count]


def test_scatter() -> None:
    buffers = [bytearray(2), bytearray(0), bytearray(3)]
    assert scatter(b"abcd", [memoryview(buffer) for buffer in buffers]) == 4
    assert b"".join(buffers) == b"abcd\0"
    assert scatter(b"abcdefgh", [memoryview(buffer) for buffer in buffers]) == 5
    assert scatter(b"", []) == 0


async def test_pipes_keep_their_flags() -> None:
    reader, writer = os.pipe()
    source, sink = Descriptor(reader, write=False), Descriptor(writer, write=True)
    assert await sink.write_from([memoryview(b"ab"), memoryview(b""), memoryview(b"cd")]) == 4
    assert await read(source, 1, 10) == b"abcd"
    assert not fcntl.fcntl(reader, fcntl.F_GETFL) & os.O_NONBLOCK
    assert not fcntl.fcntl(writer, fcntl.F_GETFL) & os.O_NONBLOCK
    sink.close()
    os.close(writer)
    assert await read(source, 10) == b""
    source.close()
    source.close()
    os.close(reader)


async def test_more_than_a_pipe_holds() -> None:
    reader, writer = os.pipe()
    source, sink = Descriptor(reader, write=False), Descriptor(writer, write=True)
    data = os.urandom(1 << 20)
    got = b""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sink.write_from, [memoryview(data)[:100], memoryview(data)[100:]])
        while len(got) < len(data):
            got += await read(source, 10_000, 90_000)
    assert got == data
    for stream, fd in ((source, reader), (sink, writer)):
        stream.close()
        os.close(fd)


async def test_nobody_reads() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    sink = Descriptor(writer, write=True)
    with pytest.raises(BrokenPipeError):
        await sink.write_from([memoryview(b"x")])
    sink.close()
    os.close(writer)


async def test_waiting_can_be_cancelled() -> None:
    reader, writer = os.pipe()
    source = Descriptor(reader, write=False)
    with trio.move_on_after(0) as scope:
        await read(source, 10)
    assert scope.cancelled_caught
    os.write(writer, b"later")
    assert await read(source, 10) == b"later"
    source.close()
    os.close(reader)
    os.close(writer)


async def test_files_and_sockets(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    stream = Descriptor(fd, write=True)
    assert await stream.write_from([memoryview(b"hello")]) == 5
    os.lseek(fd, 1, os.SEEK_SET)
    assert await read(stream, 2, 10) == b"ello"
    assert await read(stream, 2) == b""
    stream.close()
    os.close(fd)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.send(b"hello")
        stream = Descriptor(theirs.fileno(), write=False)
        assert await read(stream, 10) == b"hello"
        stream.close()


async def test_a_full_disk() -> None:
    fd = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(OSError, match="No space") as caught:
        await Descriptor(fd, write=True).write_from([memoryview(b"x")])
    assert caught.value.errno == errno.ENOSPC
    os.close(fd)


def test_null_and_same(tmp_path: Path) -> None:
    null, zero = os.open("/dev/null", os.O_RDWR), os.open("/dev/zero", os.O_RDWR)
    other = os.dup(zero)
    assert is_null(null)
    assert not is_null(zero)
    assert are_same(zero, other)
    assert not are_same(zero, null)
    for fd in (null, zero, other):
        os.close(fd)


async def test_memory() -> None:
    collector = Collector(10)
    assert await collector.write_from([memoryview(b"hello"), memoryview(b"!")]) == 6
    with pytest.raises(OSError, match="too large"):
        await collector.write_from([memoryview(b"12345")])
    assert collector.data == b"hello!"
    literal = Literal(b"hello")
    buffer = bytearray(3)
    assert await literal.read_into([memoryview(buffer)]) == 3
    assert await literal.read_into([memoryview(buffer)]) == 2
    assert await literal.read_into([memoryview(buffer)]) == 0
    assert buffer == b"lol"
