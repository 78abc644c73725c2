"""`mount`: serve a Filesystem at a directory of the host for as long as the call lasts."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import trio

from umlfs.errors import UmlError
from umlfs.filesystem import Filesystem
from umlfs.mount.notifier import Notifier
from umlfs.mount.own_server import DEVICE, OwnServer
from umlfs.mount.server import Server
from umlfs.mount.unmount import HELPER, INSTALL_HELPER, flush, unmount

SUBTYPE: Final = "umlfs"
"""Mounts are of the type `fuse.umlfs` in /proc/mounts."""

END_SECONDS: Final = 10.0
"""How long requests that are under way when the mount ends have to be answered."""

_mounted = False
"""pyfuse3 has one mount in a process."""


@dataclass(slots=True)
class Mounted:
    """A mount that is being served."""

    mountpoint: str
    server: Server

    @property
    def requests(self) -> int:
        """How many requests it has answered."""
        return self.server.requests


async def mount(
    filesystem: Filesystem,
    mountpoint: str | os.PathLike[str],
    options: Iterable[str] = (),
    *,
    source: str = SUBTYPE,
    status: Callable[[int], bytes] | None = None,
    by_pyfuse3: bool = False,
    task_status: trio.TaskStatus[Mounted] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Mount `filesystem` at the directory `mountpoint` and serve it until it is unmounted or this call is cancelled.

    `nursery.start(mount, …)` returns a `Mounted` once requests are served. `options` are libfuse's and the kernel's
    (`ro`, `allow_other`, `noatime`, …); permissions are always checked by the kernel. `source` is what
    /proc/mounts shows, `status` what the extended attribute `STATUS` of the root gives, by the number of requests
    answered so far. Our own FUSE session answers; with `by_pyfuse3`, or libfuse's option `debug`, pyfuse3's loop.

    Cancelled, it first has the kernel write out what it gathered, then takes the mount away even if it is in use;
    requests under way have `END_SECONDS` to be answered. On return the filesystem is disconnected, not closed.
    UmlError if the mount fails. One mount in a process at a time: pyfuse3 has no room for a second.
    """
    global _mounted
    if _mounted:
        raise UmlError("this process serves a mount already", "serve another from a process of its own")
    path = _absolute(mountpoint)
    chosen = _fuse_options(filesystem, options, source)
    server = _server(filesystem, status or _teller(source), by_pyfuse3 or "debug" in chosen)
    _mounted = True
    try:
        _init(server, path, chosen)
        notifier = Notifier(server.kernel)
        served = filesystem.attach(notifier)
        server.attach(served)
        try:
            async with served.running():
                await _serve(Mounted(path, server), notifier, task_status)
        finally:
            served.disconnect()
    finally:
        _mounted = False


def _server(filesystem: Filesystem, status: Callable[[int], bytes], by_pyfuse3: bool) -> Server:
    if not by_pyfuse3:
        return OwnServer(filesystem, status)
    from umlfs.mount.pyfuse3_server import Pyfuse3Server  # hardly ever wanted

    return Pyfuse3Server(filesystem, status)


def _absolute(path: str | os.PathLike[str]) -> str:
    return os.path.abspath(path)


def _fuse_options(filesystem: Filesystem, options: Iterable[str], source: str) -> set[str]:
    name = "".join(char if char.isascii() and char.isprintable() else "?" for char in source)
    name = name.replace("\\", "\\\\").replace(",", "\\,")
    chosen = {"default_permissions", f"fsname={name}", f"subtype={SUBTYPE}", *options}
    if filesystem.traits.foreign and not chosen & {"allow_other", "allow_root"}:
        chosen.discard("default_permissions")
    if filesystem.traits.read_only:
        chosen = (chosen - {"rw"}) | {"ro"}
    return chosen


# Beginning ------------------------------------------------------------------------------------


def _init(server: Server, path: str, options: set[str]) -> None:
    with _captured_stderr() as said:
        try:
            server.init(path, options)
        except (RuntimeError, UnicodeEncodeError) as error:
            why, way_out = _lacking() or _reason(said(), error)
            raise UmlError(f"{path}: cannot be mounted: {why}", way_out) from None


@contextlib.contextmanager
def _captured_stderr() -> Iterator[Callable[[], str]]:
    """What libfuse and fusermount3 say on standard error; there is no other way to know why a mount fails."""
    with tempfile.TemporaryFile() as file:
        saved = os.dup(2)
        os.dup2(file.fileno(), 2)

        def said() -> str:
            file.seek(0)
            return file.read().decode(errors="replace")

        try:
            yield said
        finally:
            os.dup2(saved, 2)
            os.close(saved)


def _reason(said: str, failure: Exception) -> tuple[str, str | None]:
    """The last line, without the name of the program that said it, and the way out."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    if not lines:
        return str(failure), None
    why = lines[-1].removeprefix(f"{HELPER}: ").removeprefix("fuse: ")
    way_out = "leave the option out, or write that word there as root" if "user_allow_other" in why else None
    return why, way_out


def _lacking() -> tuple[str, str] | None:
    """What this host lacks for mounting, and the way out."""
    if not os.path.exists(DEVICE):
        return f"there is no {DEVICE}", "'modprobe fuse' as root gives the kernel what it needs"
    if not os.access(DEVICE, os.R_OK | os.W_OK):
        return f"only root may open {DEVICE}", f"'chmod 666 {DEVICE}' as root lets everybody mount"
    return _helper_lacking() if os.geteuid() else None


def _helper_lacking() -> tuple[str, str] | None:
    helper = shutil.which(HELPER)
    if helper is None:
        return f"ordinary users mount with {HELPER}, which is not there", INSTALL_HELPER
    found = os.stat(helper)
    if found.st_uid or not found.st_mode & stat.S_ISUID:
        return f"{helper} is not setuid root", f"'chown root {helper} && chmod u+s {helper}' as root mends that"
    return None


def _teller(source: str) -> Callable[[int], bytes]:
    """What a mount that a library made tells of itself to `uml mount`."""
    since = time.time()

    def tell(requests: int) -> bytes:
        record = {"source": source, "pid": os.getpid(), "since": since, "requests": requests, "remarks": []}
        return json.dumps(record).encode()

    return tell


# Serving and ending ---------------------------------------------------------------------------


async def _serve(mounted: Mounted, notifier: Notifier, task_status: trio.TaskStatus[Mounted]) -> None:
    ended = trio.Event()
    serving = trio.CancelScope(shield=True)

    async def serve() -> None:
        try:
            with serving:
                await mounted.server.serve()
        finally:
            ended.set()

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            try:
                task_status.started(mounted)
                await ended.wait()
            finally:
                mounted.server.end_locks()
                with trio.CancelScope(shield=True):
                    await _end(mounted, notifier, ended, serving)
    finally:
        notifier.end()
        if notifier.join(0):
            mounted.server.close()


async def _end(mounted: Mounted, notifier: Notifier, ended: trio.Event, serving: trio.CancelScope) -> None:
    """Everything that needs requests to be answered comes first, while they still are."""
    notifier.end()
    with trio.move_on_after(END_SECONDS):
        await trio.to_thread.run_sync(notifier.join, END_SECONDS, abandon_on_cancel=True)
        if not ended.is_set():
            await trio.to_thread.run_sync(_detach, mounted.mountpoint, abandon_on_cancel=True)
            mounted.server.terminate()
            await ended.wait()
    if not ended.is_set():
        serving.cancel()
        await ended.wait()


def _detach(path: str) -> None:
    with contextlib.suppress(OSError):
        flush(path)
    with contextlib.suppress(OSError, UmlError):
        unmount(path, lazy=True)
