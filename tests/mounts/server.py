"""A mount for a test, and the process that serves it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from runtime.mounts.table import Status, find, umount
from tests import needs

UML = (sys.executable, "-c", "from runtime.cli import main; main()")
_SECONDS = 20.0
_CUT_SHORT = "fuse: reading device: Software caused connection abort\n"
"""What libfuse says when the unmount comes while it reads a request, such as the release of a file just closed."""


@contextmanager
def mounted(
    source: Path | str, mountpoint: Path, *options: str, preexec_fn: Callable[[], None] | None = None
) -> Iterator[int]:
    """Serve `source` at `mountpoint`, which answers when the context begins; gives the server's pid."""
    needs.path("/dev/fuse", "chmod 666 /dev/fuse, or run the tests as root")
    words = [word for option in options for word in ("-o", option)]
    server = subprocess.Popen(
        [*UML, "mount", "--foreground", str(source), str(mountpoint), *words],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        preexec_fn=preexec_fn,
    )
    try:
        wait_for(mountpoint, server)
        yield server.pid
    finally:
        try:
            if find(mountpoint) is not None:
                umount(str(mountpoint), lazy=server.poll() is not None)
            _, said = server.communicate(timeout=_SECONDS)
        except BaseException:
            _take_away(mountpoint, server)
            raise
    assert server.returncode in (0, -9), said
    assert said in ("", _CUT_SHORT)


def _take_away(mountpoint: Path, server: subprocess.Popen[str]) -> None:
    """Whatever went wrong: nothing is left."""
    server.kill()
    server.communicate()
    if find(mountpoint) is not None:
        umount(str(mountpoint), lazy=True)


def wait_for(mountpoint: Path, server: subprocess.Popen[str]) -> Status:
    """What the mount tells of itself once it does."""
    end = time.monotonic() + _SECONDS
    while time.monotonic() < end:
        if server.poll() is not None:
            pytest.fail(f"the mount ended: {server.communicate()[1]}")
        mount = find(mountpoint)
        if mount is not None:
            status = mount.status()
            assert status.pid == server.pid
            return status
        time.sleep(0.01)
    pytest.fail("nothing was mounted")
