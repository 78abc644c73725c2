"""The announcer of a mount on the host: a process that repeats through the mount what others do to its source."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import AsyncIterator
from functools import partial
from typing import Final

import trio

from umlfs.filesystem import Change
from umlfs.mount.mount import Mounted
from umlfs.wire.announcer import message

_PLACE: Final = 0


@contextlib.asynccontextmanager
async def announcing(mounted: Mounted, program: bytes) -> AsyncIterator[None]:
    """Have `program` announce the changes of what is mounted, which has some to tell. OSError if it cannot be
    started."""
    server = mounted.server
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with near, far:
        process = _started(program, far, mounted.mountpoint)
        far.close()
        announcer = server.announced_by(process.pid)
        try:
            async with trio.open_nursery() as nursery:
                near.setblocking(False)
                nursery.start_soon(announcer.run, partial(_perform, near.fileno()))
                yield
                nursery.cancel_scope.cancel()
        finally:
            near.close()
            await _end(process)
            server.announcer_ended()


def _started(program: bytes, stream: socket.socket, mountpoint: str) -> subprocess.Popen[bytes]:
    number = str(stream.fileno())
    file = os.memfd_create("announcer")
    with open(file, "wb") as written:
        written.write(program)
        written.flush()
        return subprocess.Popen(
            ["umlfs-announcer", "0", number, number, mountpoint],
            executable=f"/proc/self/fd/{file}",
            pass_fds=[file, stream.fileno()],
            stdin=subprocess.DEVNULL,
            # Those of whoever mounts: as long as it has them, a pipe from there has no end.
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )


async def _perform(stream: int, change: Change, parent: bytes, new_parent: bytes) -> None:
    """Send one change, and wait until it was tried. For ever, if the announcer has ended."""
    try:
        os.write(stream, message(_PLACE, change, parent, new_parent))
        await trio.lowlevel.wait_readable(stream)
        if os.read(stream, 1):
            return
    except (BrokenPipeError, ConnectionResetError):
        pass
    await trio.sleep_forever()


async def _end(process: subprocess.Popen[bytes]) -> None:
    """It has nothing of its own: kill it. It may wait for an answer of the mount, which is still served."""
    process.send_signal(signal.SIGKILL)
    with trio.CancelScope(shield=True):
        await trio.to_thread.run_sync(process.wait)
