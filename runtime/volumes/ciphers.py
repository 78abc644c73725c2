"""The ciphers of dm-crypt that LUKS volumes have: AES in XTS or CBC mode. The work is done by `cryptography`.

A sector's vector is defined in the kernel's `drivers/md/dm-crypt.c`: its number (of 512 bytes) as a little-endian one,
of 64 bits (plain64) or 32 (plain); for ESSIV encrypted with a digest of the key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from runtime.volumes.lvm import SECTOR, UnusableError
from umlfs.errors import UmlError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers import Cipher as AnyCipher
    from cryptography.hazmat.primitives.ciphers import CipherContext
    from cryptography.hazmat.primitives.ciphers.modes import CBC, ECB, XTS

_MODES: Final = ("xts", "cbc")


class Cipher:
    """Encrypts and decrypts whole sectors."""

    def __init__(self, encryption: str, key: bytes, sector: int) -> None:
        """`encryption` is as `aes-xts-plain64`, `sector` the bytes that are encrypted together. UnusableError for
        another cipher; UmlError without the library."""
        name, _, rest = encryption.partition("-")
        self._mode, _, vector = rest.partition("-")
        if name != "aes" or self._mode not in _MODES or vector not in ("plain", "plain64", "essiv:sha256"):
            raise UnusableError(f"encrypted with {encryption}, which umlfs does not know")
        try:
            from cryptography.hazmat.primitives.ciphers import Cipher as Made
            from cryptography.hazmat.primitives.ciphers import algorithms, modes
        except ImportError:
            raise UmlError(
                "an encrypted disk takes the Python package cryptography", "install it: pip install 'umlfs[luks]'"
            ) from None
        if len(key) not in ((32, 64) if self._mode == "xts" else (16, 24, 32)):
            raise UnusableError(f"encrypted with a key of {8 * len(key)} bits, which umlfs does not know")
        algorithm = algorithms.AES(key)
        mode = modes.XTS if self._mode == "xts" else modes.CBC
        self._made: Callable[[int], AnyCipher[XTS | CBC]] = lambda number: Made(algorithm, mode(self._vector(number)))
        self._sector = sector
        self._bits = 32 if vector == "plain" else 64
        self._salt: AnyCipher[ECB] | None = None
        if vector.startswith("essiv"):
            self._salt = Made(algorithms.AES(hashlib.sha256(key).digest()), modes.ECB())  # the vector is one block

    def _vector(self, number: int) -> bytes:
        plain = (number % (1 << self._bits)).to_bytes(16, "little")
        return plain if self._salt is None else _all(self._salt.encryptor(), plain)

    def decrypt(self, data: bytes, number: int) -> bytes:
        """`data` of whole sectors, the first of which has that number (counted in 512 bytes)."""
        return b"".join(_all(self._made(at).decryptor(), piece) for at, piece in self._sectors(data, number))

    def encrypt(self, data: bytes, number: int) -> bytes:
        """The other way round."""
        return b"".join(_all(self._made(at).encryptor(), piece) for at, piece in self._sectors(data, number))

    def _sectors(self, data: bytes, number: int) -> list[tuple[int, bytes]]:
        step = self._sector // SECTOR
        return [
            (number + index * step, data[start : start + self._sector])
            for index, start in enumerate(range(0, len(data), self._sector))
        ]


def _all(context: CipherContext, data: bytes) -> bytes:
    return context.update(data) + context.finalize()
