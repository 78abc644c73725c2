"""LUKS 1 and 2: a disk that is encrypted. `cryptsetup` finds its key, for any user; we read and write the blocks.

Header: "LUKS1 On-Disk Format Specification" 1.2.3, "LUKS2 On-Disk Format Specification" 1.1.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import trio

from runtime.volumes.ciphers import Cipher
from runtime.volumes.lvm import SECTOR, UnusableError, read
from umlfs.block import BlockDevice, Extent, ExtentKind
from umlfs.buffers import scatter, total
from umlfs.errors import UmlError
from umlfs.host.programs import run_program

_LUKS1: Final = struct.Struct(">6sH32s32s32sII")
_SIZE_AT: Final = 8
_HEADERS_MAX: Final = 64 << 20
"""What comes before the contents, with the slots for keys."""
INSTALL: Final = "install it with `apt install cryptsetup-bin`"
_DUMP: Final = re.compile(r"MK dump:\s*((?:[0-9a-f]{2}\s+)+)")
_AHEAD: Final = 16 << 10
"""So many bytes are worth a thread."""


class Segment(NamedTuple):
    """Where the contents lie, and how they are encrypted."""

    offset: int
    size: int
    sector: int
    """Bytes that are encrypted together."""
    first: int
    """The number of the first sector (of 512 bytes), for the vector."""
    encryption: str


async def unlocked(device: BlockDevice, keys: Sequence[bytes]) -> BlockDevice:
    """What is on the encrypted `device`, opened with one of `keys`. UnusableError without one that fits; ValueError for
    a header that is damaged. UmlError without the programs that it takes."""
    segment = await _segment(device)
    if not keys:
        raise UnusableError("encrypted (LUKS): give its key with --key-file or --passphrase")
    header = await read(device, 0, min(segment.offset, device.size))
    for key in keys:
        found = await trio.to_thread.run_sync(_volume_key, header, device.size, key)
        if found is not None:
            return Decrypted(device, segment, Cipher(segment.encryption, found, segment.sector))
    raise UnusableError("encrypted (LUKS), and no key that was given fits")


async def _segment(device: BlockDevice) -> Segment:
    head = await read(device, 0, 4096)
    magic, version, cipher, mode, _, offset, _ = _LUKS1.unpack_from(head)
    if magic != b"LUKS\xba\xbe" or version not in (1, 2):
        raise ValueError("its header is of a version that is not known")
    if version == 1:
        encryption = f"{_word(cipher)}-{_word(mode)}"
        found = Segment(offset * SECTOR, device.size - offset * SECTOR, SECTOR, 0, encryption)
    else:
        (length,) = struct.unpack_from(">Q", head, _SIZE_AT)
        if not 16384 <= length <= 4 << 20:
            raise ValueError("its header is damaged")
        found = _of_json(await read(device, 4096, length - 4096), device.size)
    if not SECTOR <= found.offset <= min(_HEADERS_MAX, device.size) or not 0 < found.size <= device.size - found.offset:
        raise ValueError("its contents lie outside of the disk")
    return found


def _word(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("ascii", "replace")


def _of_json(data: bytes, size: int) -> Segment:
    try:
        segments = json.loads(data.partition(b"\0")[0])["segments"]
        if len(segments) != 1:
            raise UnusableError("a LUKS2 that is being encrypted anew: end that with `cryptsetup reencrypt`")
        (each,) = segments.values()
        if each["type"] != "crypt" or "integrity" in each:
            raise UnusableError("a LUKS2 with checksums (integrity), which umlfs does not read")
        offset, sector = int(each["offset"]), int(each["sector_size"])
        length = size - offset if each["size"] == "dynamic" else int(each["size"])
        if sector not in (512, 1024, 2048, 4096):
            raise ValueError("its sectors have a size that is none")
        return Segment(offset, length // sector * sector, sector, int(each["iv_tweak"]), str(each["encryption"]))
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"its header is damaged ({error})") from None


def _volume_key(header: bytes, size: int, key: bytes) -> bytes | None:
    """What the contents are encrypted with; None if `key` does not fit. Waits."""
    program = shutil.which("cryptsetup", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if program is None:
        raise UmlError("an encrypted disk (LUKS) takes cryptsetup", INSTALL)
    with tempfile.NamedTemporaryFile(prefix="uml-luks-") as file:
        file.write(header)
        file.flush()
        os.truncate(file.name, size)
        words = [program, "luksDump", "--batch-mode", "--dump-volume-key", "--key-file", "-", file.name]
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
        done = run_program(words, input=key, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        if "No key available" in said or "no usable keyslot" in said.lower():
            return None
        raise UnusableError(f"encrypted (LUKS): cryptsetup: {said or f'status {done.returncode}'}")
    found = _DUMP.search(done.stdout.decode("ascii", "replace") + "\n")
    if found is None:
        raise UnusableError("encrypted (LUKS): this cryptsetup does not tell the volume's key")
    return bytes.fromhex("".join(found[1].split()))


class Decrypted(BlockDevice):
    """The contents in the clear. The device stays the caller's."""

    can_discard = False

    def __init__(self, device: BlockDevice, segment: Segment, cipher: Cipher) -> None:
        self._device = device
        self._segment = segment
        self._cipher = cipher
        self.size = segment.size
        self.block_size = max(segment.sector, device.block_size)
        self.read_only = device.read_only
        self._turn = trio.Lock()
        """Held where sectors are read, changed and written back."""

    async def read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        scatter(await self._read(offset, total(buffers)), buffers)

    async def _read(self, offset: int, length: int) -> bytes:
        start, end = self._around(offset, length)
        data = await read(self._device, self._segment.offset + start, end - start) if end > start else b""
        clear = await self._crypt(self._cipher.decrypt, data, start)
        return clear[offset - start : offset - start + length]

    async def write_from(self, offset: int, buffers: Sequence[memoryview]) -> None:
        data = b"".join(buffers)
        start, end = self._around(offset, len(data))
        async with self._turn:
            if (start, end) != (offset, offset + len(data)):
                whole = bytearray(await self._read(start, end - start))
                whole[offset - start : offset - start + len(data)] = data
                data = bytes(whole)
            secret = bytearray(await self._crypt(self._cipher.encrypt, data, start))
            await self._device.write_from(self._segment.offset + start, [memoryview(secret)])

    def _around(self, offset: int, length: int) -> tuple[int, int]:
        """The range of whole sectors that holds it. EINVAL unless it lies within."""
        if offset < 0 or length < 0 or offset + length > self.size:
            raise OSError(22, os.strerror(22))
        sector = self._segment.sector
        return offset // sector * sector, -(-(offset + length) // sector) * sector

    async def _crypt(self, work: Callable[[bytes, int], bytes], data: bytes, start: int) -> bytes:
        number = self._segment.first + start // SECTOR
        return work(data, number) if len(data) < _AHEAD else await trio.to_thread.run_sync(work, data, number)

    async def flush(self) -> None:
        await self._device.flush()

    async def discard(self, offset: int, length: int) -> None:
        """Does nothing: what is free would show."""
        self._around(offset, length)

    async def write_zeroes(self, offset: int, length: int, unmap: bool = True) -> None:
        zeroes = memoryview(bytes(1 << 20))
        for start in range(offset, offset + length, 1 << 20):
            await self.write_from(start, [zeroes[: min(1 << 20, offset + length - start)]])

    async def extents(self, offset: int, length: int) -> Sequence[Extent]:
        self._around(offset, length)
        return [Extent(offset, length, ExtentKind.DATA)] if length else []

    async def close(self) -> None:
        """Does nothing to the device."""
