"""The hostile kernel: compiled, run in a jail or without one, and what came of its tricks."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

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
        for address in (f"\0{name}", str(outside / "socket")):
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(address)
            listener.listen()
        yield [
            f"secret={outside}/secret",
            f"outside={outside}",
            f"parent={os.getpid()}",
            f"victim={victim.pid}",
            f"tcp={tcp.getsockname()[1]}",
            f"abstract={name}",
            f"socket={outside}/socket",
        ]


async def attack(kernel: Path, directory: Path, mode: Mode, only: Sequence[str] = ()) -> Attack:
    """Run the hostile kernel to its end."""
    lines: list[bytes] = []
    os.environ[SECRET] = "1"
    try:
        with _targets(directory) as words:
            words += [f"only={','.join(only)}"] if only else []
            options = Options(kernel=str(kernel), jail=mode, memory=64 << 20, arguments=words, on_log=lines.append)
            machine = Machine(options)
            with contextlib.suppress(UmlError), trio.fail_after(120):
                async with machine:
                    pass
    finally:
        del os.environ[SECRET]
    text = b"\n".join(lines)
    assert b"all tricks are done" in text, text.decode(errors="replace")
    found = [(name.decode(), what, number) for name, what, number in _LINE.findall(text)]
    return Attack(
        frozenset(name for name, what, _ in found if what == b"worked"),
        {name: int(number) for name, what, number in found if what == b"failed"},
        machine.layers,
    )
