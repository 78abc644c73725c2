"""The filer's one request that FUSE has not: MOUNT, and what it answers."""

from __future__ import annotations

import os
import re
import struct
from typing import Final

from umlfs.errors import UmlError
from umlfs.filesystem import Entry
from umlfs.stream.connection import StreamConnection
from umlfs.wire import fuse as wire
from umlfs.wire import stream_replies as replies
from umlfs.wire import stream_requests as requests

WORDS_MAX: Final = 4096
_ERRNO: Final = struct.Struct("<I")


async def mount(connection: StreamConnection, device: str, kind: str, options: str, *, writable: bool) -> Entry:
    """The root of the filesystem that the filer mounts. UmlError with the kernel's words if it does not mount; OSError
    if the filer is gone."""
    body = requests.mount(device, kind, options, writable=writable)
    limit = _ERRNO.size + max(wire.ENTRY_OUT_SIZE, WORDS_MAX)
    answer = (await connection.ask(requests.MOUNT, 0, body, limit=limit)).data
    if len(answer) < _ERRNO.size:
        raise UmlError("the appliance makes no sense", "try again")
    (error,) = _ERRNO.unpack_from(answer)
    if error:
        raise mount_failure(kind, error, bytes(answer[_ERRNO.size :]))
    try:
        return replies.entry(answer, _ERRNO.size)
    except replies.ProtocolError as problem:
        raise UmlError(f"the appliance makes no sense: {problem}", "try again") from None


def mount_failure(kind: str, error: int, log: bytes) -> UmlError:
    """Why the guest's kernel did not mount a filesystem."""
    lines = [re.sub(r"^<\d+>(\[ *[\d.]+\] ?)?", "", line) for line in log.decode(errors="replace").splitlines()]
    words = [line.strip() for line in lines if line.strip()]
    why = f" ({words[-1]})" if words else ""
    return UmlError(f"the {kind} filesystem does not mount: {os.strerror(error)}{why}", details="\n".join(words[:-1]))
