"""Guests with disks, for tests: commands run in them, and images to attach."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import trio

from runtime.machine.machine import Machine, Options
from runtime.tty.caller import DEFAULT_PATH
from runtime.tty.streams import Collector
from tests import needs
from umlfs.ubd import Spec, parse

MIB = 1 << 20
SECONDS = 60
"""After so long a test gives up a guest."""


def specs(*words: str) -> list[Spec]:
    return [parse(word) for word in words]


async def shell(machine: Machine, script: str, *, status: int | None = 0) -> str:
    """Run a script of the shell in a guest; what it said. With a `status` of None any exit status will do."""
    return await command(machine, ["/bin/sh", "-c", script], status=status)


async def command(machine: Machine, words: Sequence[str], *, status: int | None = 0) -> str:
    said, complained = Collector(MIB), Collector(MIB)
    job = machine.start(words, stdout=said, stderr=complained, environment={"PATH": DEFAULT_PATH}, directory="/")
    with trio.fail_after(SECONDS):
        found = await job.wait()
    output = bytes(said.data).decode(errors="replace")
    log = b"\n".join(machine.log[-20:]).decode(errors="replace")
    assert status is None or found == status, output + bytes(complained.data).decode(errors="replace") + log
    return output


async def guest(script: str, *ubds: str, native: bool = False) -> str:
    """Boot a guest with these disks and run a script in it."""
    async with Machine(Options(ubds=specs(*ubds), native_ubd=native)) as machine:
        return await shell(machine, script)


def empty(path: Path, size: int) -> Path:
    path.touch()
    os.truncate(path, size)
    return path


def make_filesystem(kind: str, path: Path, size: int = 24 * MIB, tree: Path | None = None) -> Path:
    """A new image with an empty filesystem."""
    empty(path, size)
    options = {"ext4": ["-qF"], "xfs": ["-q", "-f"], "btrfs": ["-q", "-f"]}[kind]
    subprocess.run([needs.program(f"mkfs.{kind}"), *options, path], check=True, stdin=subprocess.DEVNULL)
    return path


def allocated(path: Path) -> int:
    """The bytes that a file takes on the host."""
    return path.stat().st_blocks * 512


def content(path: Path) -> bytes:
    return path.read_bytes()


class Heard:
    """A command's output, to be waited for."""

    def __init__(self) -> None:
        self.data = b""
        self._more = trio.Condition()

    async def write_from(self, buffers: Sequence[memoryview]) -> int:
        async with self._more:
            self.data += b"".join(buffers)
            self._more.notify_all()
        return sum(map(len, buffers))

    async def line(self, text: bytes) -> None:
        """Wait until the command has written this line."""
        with trio.fail_after(SECONDS):
            await self._line(text)

    async def _line(self, text: bytes) -> None:
        async with self._more:
            while text not in self.data.split(b"\n")[:-1]:
                await self._more.wait()
