"""Taking a cluster down: whatever became of it, nothing of it is left."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import trio

from runtime.cluster import orphans, state
from runtime.cluster.bringing_up import Say
from runtime.cluster.description import load
from runtime.cluster.joining import leave
from runtime.machine.script import BUSYBOX
from runtime.machines import client, ended
from runtime.machines import directory as machines
from runtime.machines.capture import capture
from runtime.network import lab as labs
from umlfs.errors import UmlError

LEAVE_SECONDS: Final = 60.0
HALT_SECONDS: Final = 20.0
"""How long a guest may do nothing before it is ended by force."""
GONE_SECONDS: Final = 10.0


def take_down(name: str, say: Say) -> None:
    """End the machines of the cluster, in order where that can be, and remove its network and the COW files. UmlError
    if there is none."""
    with state.locked(name):
        umids = _umids(name)
        if umids is None:
            raise UmlError(f"{name}: no such cluster is up", "'uml cluster ps' lists those that are")
        sockets = {*_sockets(name), *(path for umid in umids for path in orphans.directories(umid))}
        trio.run(_end_all, umids, _leave_script(name), say)
        for umid in umids:
            _clear(umid)
        orphans.remove(sockets)
        _remove_network(name)
        state.forget(name)


def _umids(name: str) -> Sequence[str] | None:
    """Its machines, also where its record is damaged; None if nothing of it is there."""
    try:
        known = state.read(name)
        return None if known is None else known.umids
    except UmlError:
        found = [path.name for path in machines.machines_directory().glob(f"{name}-[0-9]*")]
        return [umid for umid in found if umid.removeprefix(f"{name}-").isdigit()]


def _sockets(name: str) -> Sequence[str]:
    with contextlib.suppress(UmlError):
        return state.found(name).sockets
    return ()


def _leave_script(name: str) -> str:
    """As far as the cluster's file is still there to say what is mounted."""
    with contextlib.suppress(UmlError, OSError):
        return leave(load(Path(state.found(name).file)))
    return "sync\n"


async def _end_all(umids: Sequence[str], script: str, say: Say) -> None:
    """All at once: the last to leave has nobody to wait for."""
    async with trio.open_nursery() as nursery:
        for umid in umids:
            nursery.start_soon(_end, umid, script, say)


async def _end(umid: str, script: str, say: Say) -> None:
    path = machines.machines_directory() / umid
    if not machines.is_locked(path):
        return
    with contextlib.suppress(UmlError, OSError):
        await capture(path, [BUSYBOX, "sh", "-c", script], LEAVE_SECONDS)
    try:
        await client.ask(path, {"do": "power", "action": "halt", "seconds": HALT_SECONDS})
    except (UmlError, OSError) as error:
        say(f"{umid}: ended by force: {error.what if isinstance(error, UmlError) else error.strerror}")
        _kill_supervisor(path)
    with trio.move_on_after(GONE_SECONDS):
        while machines.is_locked(path):  # noqa: ASYNC110 - its lock is let go without a word
            await trio.sleep(0.05)
        say(f"{umid}: ended")
        return
    _kill_supervisor(path)


def _kill_supervisor(path: Path) -> None:
    """Who looks after the machine; the keeper then ends its kernel."""
    pid = machines.read_pid(path)
    if pid is not None and machines.is_locked(path):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def _clear(umid: str) -> None:
    """What is left of a machine that was killed with all that belongs to it."""
    orphans.end(umid)
    path = machines.machines_directory() / umid
    if path.is_dir() and not machines.runs(path):
        shutil.rmtree(path, ignore_errors=True)
    with contextlib.suppress(OSError):
        ended.remove(machines.machines_directory(), umid)


def _remove_network(name: str) -> None:
    """The cluster's network; its switch may need a moment to hear that the machines have ended."""
    deadline = time.monotonic() + GONE_SECONDS
    while True:
        try:
            labs.find(name)
        except UmlError:
            return
        try:
            return labs.remove(name)
        except UmlError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.1)
