"""The keys for encrypted disks that this process was given: never in a word, an environment or a file of ours."""

from __future__ import annotations

from collections.abc import Sequence

from umlfs.errors import UmlError

_KEYS: list[bytes] = []
KEY_MAX = 8 << 20
"""As large as cryptsetup takes a key file."""


def add(key: bytes) -> None:
    """Try this one from now on."""
    if key not in _KEYS:
        _KEYS.append(key)


def add_file(path: str) -> None:
    """Try what is in a file: all of it, as cryptsetup does, line ends too. UmlError."""
    try:
        with open(path, "rb") as file:
            key = file.read(KEY_MAX + 1)
    except OSError as error:
        raise UmlError(f"{path}: {error.strerror}", None) from None
    if not key or len(key) > KEY_MAX:
        raise UmlError(f"{path}: a key file has 1 to {KEY_MAX} bytes", "name another one")
    add(key)


def known() -> Sequence[bytes]:
    """All there are."""
    return tuple(_KEYS)
