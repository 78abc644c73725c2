"""Reading what a kernel does not share, from its process."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from umlfs.virtio.kernel_image import KernelImage
from umlfs.virtio.virtqueue import IMAGE_MAX, GuestMemory, Region, RingError

PEER = """
import ctypes, mmap, socket, sys
size = 1 << 20
whole = mmap.mmap(-1, 2 * size)
address = ctypes.addressof(ctypes.c_char.from_buffer(whole))
whole[100:105] = b"image"
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
with open(sys.argv[1], "r+b") as file:
    libc.mmap(address + size, size, 3, mmap.MAP_SHARED | 0x10, file.fileno(), size)
connection = socket.socket(socket.AF_UNIX)
connection.connect(sys.argv[2])
connection.recv(1)
"""
SIZE = 1 << 20


def test_what_lies_below_the_shared_memory(tmp_path: Path) -> None:
    memory = tmp_path / "memory"
    memory.write_bytes(bytes(2 * SIZE))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        listener.listen()
        words: list[str | Path] = [sys.executable, "-c", PEER, memory, tmp_path / "socket"]
        with subprocess.Popen(words) as peer, listener.accept()[0] as connection, memory.open("r+b") as file:
            image = KernelImage.of(connection)
            assert image is not None
            image.shares(SIZE, SIZE, file.fileno())
            guest = GuestMemory([Region(SIZE, SIZE, memoryview(bytearray(SIZE)))], image.read)
            assert bytes(guest.image(100, 5)) == b"image"
            for address, length in ((SIZE - 1, 2), (2 * SIZE, 1), (2**64 - 1, 1)):
                with pytest.raises(RingError):
                    guest.image(address, length)
            peer.kill()
            peer.wait()
            with pytest.raises(RingError):
                guest.image(100, 5)
            image.close()


def test_this_process_is_no_kernel() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert KernelImage.of(ours) is None


def test_without_an_image() -> None:
    guest = GuestMemory([Region(SIZE, SIZE, memoryview(bytearray(SIZE)))])
    with pytest.raises(RingError, match="outside guest memory"):
        guest.image(0, 1)
    assert os.sysconf("SC_PAGE_SIZE") * 256 > IMAGE_MAX
