"""Reading what a kernel does not share, from its process."""

from __future__ import annotations

import errno
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from umlfs.host.syscalls import failure
from umlfs.virtio import kernel_image
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
HEIR = """
import os, socket, sys
connection = socket.socket(socket.AF_UNIX)
connection.connect(sys.argv[1])
if not os.fork():
    connection.recv(1)
"""
"""Ends when it has connected, and leaves the connection to its child."""
SIZE = 1 << 20


def no_pidfd(connection: socket.socket) -> int:
    """As hosts before Linux 6.5."""
    raise failure(errno.ENOPROTOOPT)


@pytest.mark.parametrize("is_old", [False, True])
def test_what_lies_below_the_shared_memory(is_old: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if is_old:
        monkeypatch.setattr(kernel_image, "_process_of", no_pidfd)
    memory = tmp_path / "memory"
    memory.write_bytes(bytes(2 * SIZE))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        listener.listen()
        words: list[str | Path] = [sys.executable, "-c", PEER, memory, tmp_path / "socket"]
        with subprocess.Popen(words) as peer, listener.accept()[0] as connection, memory.open("r+b") as file:
            pid = peer.pid
            image = KernelImage.of(connection, lambda: pid if is_old else None)
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
        assert KernelImage.of(ours, os.getpid) is None


@pytest.mark.parametrize("is_old", [False, True])
def test_whose_number_may_be_anothers(is_old: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hostile kernel has a process connect and end, and waits until a process of the host has its number."""
    if is_old:
        monkeypatch.setattr(kernel_image, "_process_of", no_pidfd)
    memory = tmp_path / "memory"
    memory.write_bytes(bytes(SIZE))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        listener.listen()
        subprocess.run([sys.executable, "-c", HEIR, tmp_path / "socket"], check=True)
        with listener.accept()[0] as connection, memory.open("r+b") as file:
            raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            assert struct.unpack("3i", raw)[0] != os.getpid()
            image = KernelImage.of(connection, lambda: None)
            if image is not None:
                image.shares(SIZE, 0, file.fileno())
                with pytest.raises(OSError, match="No such"):
                    image.read(100, 5)
                image.close()


def test_without_an_image() -> None:
    guest = GuestMemory([Region(SIZE, SIZE, memoryview(bytearray(SIZE)))])
    with pytest.raises(RingError, match="outside guest memory"):
        guest.image(0, 1)
    assert os.sysconf("SC_PAGE_SIZE") * 256 > IMAGE_MAX
