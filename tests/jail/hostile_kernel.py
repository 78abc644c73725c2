"""The hostile kernel: compiled, run in a jail or without one, and what came of its tricks."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import trio

from runtime.jail.layers import Layers, Mode
from runtime.kernels.kernel import find_kernel
from runtime.machine.machine import Machine, Options
from tests import needs
from umlfs.errors import UmlError

SOURCE = Path(__file__).with_name("hostile.c")
TRICKS = re.findall(r'TRICK\("([\w-]+)"', SOURCE.read_text())
"""The names of all tricks."""
SECRET = "UMLFS_TEST_SECRET"
SERVICES = {
    "agent": ("agent.1", "/tmp", "ssh-"),
    "bus": ("bus", "/run", "user-"),
    "docker": ("docker.sock", "/run", "docker-"),
    "log": ("dev-log", "/run", "journal-"),
}
"""Sockets of services: a name, the directory below which it lies for root, and how the one that it lies in begins."""
ENVIRONMENT = {
    SECRET: "1",
    "SSH_AUTH_SOCK": "/tmp/ssh-x/agent.1",
    "DBUS_SESSION_BUS_ADDRESS": "unix:path=/run/user/0/bus",
    "DOCKER_HOST": "unix:///run/docker.sock",
}
_LINE = re.compile(rb"trick ([\w-]+) (worked|failed)(?: (\d+))?")


@dataclass(frozen=True, slots=True)
class Attack:
    """What came of one run."""

    worked: frozenset[str]
    failed: dict[str, int]
    """With the errno of each."""
    layers: Layers


def compiled(directory: Path) -> Path:
    """The hostile kernel, an executable that says it is the kernel that there is."""
    path = directory / "linux"
    version = f'-DVERSION="{find_kernel().version}"'
    needs.program("gcc")
    subprocess.run(["gcc", "-std=gnu11", "-O1", "-static", version, str(SOURCE), "-o", str(path)], check=True)
    path.chmod(0o755)
    return path


@contextlib.contextmanager
def _targets(directory: Path) -> Iterator[list[str]]:
    """What the tricks aim at, in words for the kernel's command line."""
    outside = directory / "outside"
    shutil.rmtree(outside, ignore_errors=True)
    outside.mkdir()
    (outside / "secret").write_text("secret")
    (outside / "to-unlink").write_text("")
    victim = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
    name = f"umlfs-test-{os.getpid()}"
    with contextlib.ExitStack() as stack:
        stack.callback(victim.wait)
        stack.callback(victim.kill)
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        services = {each: stack.enter_context(_service(each)) for each in SERVICES}
        for address in (f"\0{name}", str(outside / "socket")):
            _listen(stack, address)
        yield [
            f"secret={outside}/secret",
            f"outside={outside}",
            f"parent={os.getpid()}",
            f"victim={victim.pid}",
            f"tcp={tcp.getsockname()[1]}",
            f"abstract={name}",
            f"socket={outside}/socket",
            *(f"{each}={path}" for each, path in services.items()),
        ]


@contextlib.contextmanager
def _service(word: str) -> Iterator[str]:
    """The path of a socket such as a service of the host has, where it has it."""
    name, directory, prefix = SERVICES[word]
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(tempfile.TemporaryDirectory(prefix=prefix, dir=directory if _is_root() else "/tmp"))
        path = os.path.join(place, name)
        _listen(stack, path, socket.SOCK_DGRAM if word == "log" else socket.SOCK_STREAM)
        yield path


def _is_root() -> bool:
    return os.geteuid() == 0


def _listen(stack: contextlib.ExitStack, address: str, kind: int = socket.SOCK_STREAM) -> None:
    listener = stack.enter_context(socket.socket(socket.AF_UNIX, kind))
    listener.bind(address)
    if kind == socket.SOCK_STREAM:
        listener.listen()


async def attack(kernel: Path, directory: Path, mode: Mode, only: Sequence[str] = ()) -> Attack:
    """Run the hostile kernel to its end."""
    lines: list[bytes] = []
    with mock.patch.dict(os.environ, ENVIRONMENT), _targets(directory) as words:
        words += [f"only={','.join(only)}"] if only else []
        options = Options(kernel=str(kernel), jail=mode, memory=64 << 20, arguments=words, on_log=lines.append)
        machine = Machine(options)
        with contextlib.suppress(UmlError), trio.fail_after(120):
            async with machine:
                pass
    text = b"\n".join(lines)
    assert b"all tricks are done" in text, text.decode(errors="replace")
    found = [(name.decode(), what, number) for name, what, number in _LINE.findall(text)]
    return Attack(
        frozenset(name for name, what, _ in found if what == b"worked"),
        {name: int(number) for name, what, number in found if what == b"failed"},
        machine.layers,
    )
