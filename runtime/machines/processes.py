"""The processes of a running machine's guest, seen from the host."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

from runtime.machine.script import BUSYBOX
from runtime.machines.client import answer_of, connected
from umlfs.errors import UmlError

SECONDS: Final = 10.0
"""How long a guest may take to answer."""
SAID_MAX: Final = 16 << 20
"""Bytes that it may say."""
TICKS: Final = 100.0
"""Of processor time in a second: USER_HZ, the same in every kernel."""
PAGE: Final = 4096

# One process for all of them: a fork costs a guest milliseconds. A name can have line ends in it, so all lines of a
# stat file are read.
_LIST: Final = r"""
IFS=
for place in /proc/[0-9]*; do
    uid=
    while read -r line; do
        case $line in Uid:*) uid=${line#Uid:?}; break ;; esac
    done <$place/status
    stat=
    while read -r line; do stat="$stat $line"; done <$place/stat
    [ "$stat" ] && echo "${place#/proc/} $uid|$stat"
done 2>/dev/null
exit 0
"""


@dataclass(frozen=True, slots=True)
class GuestProcess:
    """One of them, as its kernel tells."""

    pid: int
    uid: int
    name: str
    """The guest's own choice: not to be printed as it is."""
    state: str
    cpu: float
    """Seconds of processor time."""
    memory: int
    """Bytes that it has in memory."""


async def run(path: Path, command: Sequence[str]) -> tuple[int, bytes, bytes]:
    """Exit status, output and errors of a command in the machine with the directory `path`. UmlError, also if it takes
    longer than `SECONDS`."""
    with trio.move_on_after(SECONDS):
        return await _run(path, command)
    raise UmlError(f"{path.name}: the guest does not answer within {SECONDS:g} s", "it may hang, or be stopped")


async def _run(path: Path, command: Sequence[str]) -> tuple[int, bytes, bytes]:
    with contextlib.ExitStack() as theirs:
        null = os.open(os.devnull, os.O_RDONLY)
        theirs.callback(os.close, null)
        (out, stdout), (err, stderr) = os.pipe(), os.pipe()
        theirs.callback(os.close, stdout)
        theirs.callback(os.close, stderr)
        async with trio.lowlevel.FdStream(out) as output, trio.lowlevel.FdStream(err) as errors:
            async with connected(path) as channel:
                request = {"do": "exec", "command": list(command), "terminal": False, "directory": "/"}
                try:
                    await channel.send({**request, "environment": {}, "user": None}, [null, stdout, stderr])
                    await answer_of(channel, path)
                    theirs.close()
                    said, why = bytearray(), bytearray()
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(_gather, output, said)
                        nursery.start_soon(_gather, errors, why)
                    status = int((await answer_of(channel, path))["exit"])
                except (trio.BrokenResourceError, KeyError, ValueError):
                    raise UmlError(f"{path.name}: the machine ended", "'uml ps' lists those that run") from None
            return status, bytes(said), bytes(why)


async def _gather(stream: trio.abc.ReceiveStream, into: bytearray) -> None:
    """All that comes; what is too much is dropped."""
    async for data in stream:
        into += data[: SAID_MAX - len(into)]


async def processes(path: Path) -> list[GuestProcess]:
    """Those that run in the machine with the directory `path`, by their numbers. UmlError."""
    _, said, _ = await run(path, [BUSYBOX, "sh", "-c", _LIST])
    found = filter(None, map(parse, said.decode(errors="replace").splitlines()))
    return sorted(found, key=lambda each: each.pid)


def parse(line: str) -> GuestProcess | None:
    """A line of `_LIST`; None for what makes no sense."""
    head, _, stat = line.partition("|")
    begin, end = stat.find("("), stat.rfind(")")
    fields = stat[end + 1 :].split()
    try:
        pid, uid = head.split()[:2]
        memory = int(fields[21]) * PAGE
        cpu = (int(fields[11]) + int(fields[12])) / TICKS
        return GuestProcess(int(pid), int(uid), stat[begin + 1 : end], fields[0], cpu, memory)
    except (ValueError, IndexError):
        return None


async def kill(path: Path, signal: str, pids: Sequence[int]) -> None:
    """Send a signal (`TERM`, or a number) to processes of the guest. UmlError with the guest's words if one is not
    there; the others have got it then."""
    status, _, why = await run(path, [BUSYBOX, "kill", "-s", signal, *map(str, pids)])
    if status:
        words = why.decode(errors="replace").strip().splitlines() or [f"exit status {status}"]
        said = "; ".join(word.removeprefix("kill: ") for word in words)
        raise UmlError(f"{path.name}: {said}", f"'uml top {path.name}' lists its processes")
