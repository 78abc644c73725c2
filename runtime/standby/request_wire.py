"""What a client asks of a standby, as bytes: a length, and as many bytes of fields that each end with a NUL.

The fields are the program's identity, the umask in octal, the number of arguments, the arguments, and the environment
as `NAME=value`.
"""

from __future__ import annotations

import os

LENGTH_SIZE = 4
REQUEST_MAX = 16 << 20
"""Bytes of the fields. Linux allows less of arguments and environment."""


class Malformed(ValueError):
    """Bytes that are no request."""


def encode(identity: str, umask: int, arguments: list[str], environment: dict[bytes, bytes]) -> bytes:
    """A whole request."""
    fields = [os.fsencode(identity), b"%o" % umask, b"%d" % len(arguments), *map(os.fsencode, arguments)]
    fields += [name + b"=" + value for name, value in environment.items()]
    body = b"".join(field + b"\0" for field in fields)
    return len(body).to_bytes(LENGTH_SIZE, "little") + body


def length(head: bytes) -> int:
    """How many bytes follow the first `LENGTH_SIZE`. Malformed."""
    size = int.from_bytes(head, "little")
    if len(head) != LENGTH_SIZE or size > REQUEST_MAX:
        raise Malformed(f"a request of {size} bytes")
    return size


def decode(body: bytes) -> tuple[str, int, list[str], dict[bytes, bytes]]:
    """Identity, umask, arguments and environment. Malformed."""
    if not body.endswith(b"\0"):
        raise Malformed("cut short")
    fields = body[:-1].split(b"\0")
    try:
        identity, umask, count = os.fsdecode(fields[0]), int(fields[1], 8), int(fields[2])
    except (ValueError, IndexError):
        raise Malformed("no numbers") from None
    arguments, pairs = fields[3 : 3 + count], [field.partition(b"=") for field in fields[3 + count :]]
    if not 0 <= umask <= 0o777 or count < 0 or len(arguments) < count or not all(equals for _, equals, _ in pairs):
        raise Malformed("fields that make no sense")
    return identity, umask, list(map(os.fsdecode, arguments)), {name: value for name, _, value in pairs}
