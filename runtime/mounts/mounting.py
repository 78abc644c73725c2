"""Sources mounted on the host: one process for each mount."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from runtime.mounts import source as mount_source
from runtime.mounts.options import MountOptions
from runtime.mounts.table import DEAD, MountEntry, Status, clear_dead, find, table
from runtime.process import background, processes
from runtime.process.open_files import raise_limit
from umlfs.errors import UmlError, no_such
from umlfs.filesystem import Filesystem

if TYPE_CHECKING:
    from umlfs.mount.mount import Mounted

READ_AHEAD_KB: Final = 1024
GARBAGE_THRESHOLD: Final = 50_000
"""How many new objects make Python look for cycles of unused ones."""


def check(source: str, mountpoint: str) -> None:
    """Refuse what cannot be mounted, before anything is started; a dead mount of ours is taken away first.

    UmlError or UsageError.
    """
    if clear_dead(mountpoint):
        check(source, mountpoint)
        return
    present = find(mountpoint)
    if present is not None:
        raise UmlError(
            f"{mountpoint}: {present.source} is mounted there already", f"'uml umount {mountpoint}' unmounts it"
        )
    if not os.path.isdir(mountpoint):
        why = "not a directory" if os.path.lexists(mountpoint) else "no such directory"
        raise no_such(mountpoint, "a mount point is a directory that is there", what=why)
    mount_source.check(source)


def start(source: str, mountpoint: str, options: MountOptions) -> Status:
    """Mount in the background; returns what the mount tells of itself, so it answers. UmlError if it does not."""
    check(source, mountpoint)

    def work(ready: Callable[[], None]) -> None:
        with processes.for_machines():
            trio.run(serve, source, mountpoint, options, ready)

    pid = background.start(work)
    mount = find(mountpoint)
    try:
        if mount is None:
            raise UmlError(f"{mountpoint}: unmounted again already", "somebody else may have done it")
        return mount.status()
    except OSError as error:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        with contextlib.suppress(UmlError):
            clear_dead(mountpoint)
        raise UmlError(
            f"{mountpoint}: the mount does not answer: {error.strerror}", "'--foreground' shows why"
        ) from None


async def serve(source: str, mountpoint: str, options: MountOptions, ready: Callable[[], None]) -> None:
    """Mount, call `ready`, and serve until unmounted, or told to end by SIGTERM or SIGINT.

    UmlError if it cannot be mounted.
    """
    raise_limit()
    path = _resolved(mountpoint)
    aside = (path, *(Path(mount.path) for mount in table()))
    async with mount_source.opened(source, options, aside) as filesystem:
        await _serve(filesystem, source, path, options, ready)


async def _serve(
    filesystem: Filesystem, source: str, path: Path, options: MountOptions, ready: Callable[[], None]
) -> None:
    from umlfs.mount import mount

    since, reads_only = time.time(), options.read_only

    def status(requests: int) -> bytes:
        return Status(source, os.getpid(), since, requests, filesystem.remarks(), reads_only).encoded()

    async def mounted(task_status: trio.TaskStatus[Mounted]) -> None:
        await mount(
            filesystem,
            path,
            options.kernel,
            source=source,
            status=status,
            by_pyfuse3=options.by_pyfuse3,
            task_status=task_status,
        )
        if await trio.to_thread.run_sync(clear_dead, path):
            raise UmlError(f"{path}: the mount broke off", "'--debug' and '--foreground' show more")
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(_cancel_on_signal, nursery.cancel_scope)
        live: Mounted = await nursery.start(mounted)
        if live.server.filesystem.changes is not None:
            await nursery.start(_announce, live)
        _read_ahead(path)
        _collect_seldom()
        ready()


async def _announce(live: Mounted, task_status: trio.TaskStatus[None]) -> None:
    """Tell programs that wait for changes (inotify) of those that others make."""
    from runtime.guest.announcer import program
    from umlfs.mount.announcing import announcing

    executable = await trio.to_thread.run_sync(program)
    async with announcing(live, executable):
        task_status.started()
        await trio.sleep_forever()


def _read_ahead(mountpoint: Path) -> None:
    """Have the kernel read ahead as much as one request takes. It begins with 128 KiB, and only root may change it."""
    for mount in table():
        if mount.path == str(mountpoint):
            device = f"{os.major(mount.device)}:{os.minor(mount.device)}"
            with contextlib.suppress(OSError):
                Path(f"/sys/class/bdi/{device}/read_ahead_kb").write_text(f"{READ_AHEAD_KB}\n")


def _collect_seldom() -> None:
    """Nearly all objects here are inodes, which live until they are forgotten: looking for cycles among them often
    costs a tenth of the time and finds nothing."""
    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD, 20, 20)


def _resolved(path: str) -> Path:
    return Path(os.path.realpath(path))


async def _cancel_on_signal(scope: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            scope.cancel()
            return


# What is mounted ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Listed:
    """A mount of ours, with what it told or why it did not."""

    mount: MountEntry
    status: Status | None
    trouble: str = ""

    def fields(self) -> dict[str, object]:
        """For a program to read."""
        known = None if self.status is None else asdict(self.status)
        return {"source": self.mount.source, "mountpoint": self.mount.path, "trouble": self.trouble or None} | (
            known or {"pid": None, "since": None, "requests": None, "remarks": []}
        )

    def cells(self) -> list[str]:
        """For a person to read."""
        if self.status is None:
            return [self.mount.source, self.mount.path, "", "", "", self.trouble]
        since = datetime.fromtimestamp(self.status.since).isoformat(" ", "seconds")
        status = self.status
        remarks = "; ".join(status.remarks)
        return [status.source, self.mount.path, str(status.pid), since, str(status.requests), remarks]


def listing() -> list[Listed]:
    """Our mounts; dead ones are taken away instead. Blocks, for each that does not answer for some seconds."""
    found = []
    for mount in table():
        if not mount.ours:
            continue
        try:
            found.append(Listed(mount, mount.status()))
        except OSError as error:
            trouble = _cleared(mount) if error.errno in DEAD else f"does not answer: {error.strerror}"
            if trouble:
                found.append(Listed(mount, None, trouble))
    return found


def _cleared(mount: MountEntry) -> str:
    """Take away a dead mount; says why if it stays."""
    try:
        clear_dead(mount.path)
    except UmlError as error:
        return f"dead: {error}"
    return ""
