"""A kernel booted by hand, with nothing of ours between it and the tests."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from runtime.guest.initramfs import build, find_busybox
from runtime.kernels.features import features
from runtime.kernels.kernel import find_kernel
from runtime.kernels.tuning import Tuning, command_line, skippable
from runtime.process.keeper import Keeper
from runtime.process.memory import memory_directory

PATIENCE = 60
"""Seconds that nothing here needs."""

_INIT = """\
#!/bin/busybox sh
exec >/dev/console 2>&1
busybox mount -t proc proc /proc
busybox mknod /tty1 c 4 1
busybox mknod /watchdog c 10 130
exec </tty1
echo guest is up
while read -r line; do eval "$line"; done
"""


class Log:
    """What the kernel and its guest print, read all the time: a full pipe would stop them."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self._text = ""
        self._more = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while data := os.read(self._pipe.fileno(), 65536):
            with self._more:
                self._text += data.decode(errors="replace")
                self._more.notify_all()

    def wait_for(self, text: str, count: int = 1) -> None:
        """Return when `text` has been there so often."""
        with self._more:
            assert self._more.wait_for(lambda: self._text.count(text) >= count, PATIENCE), self._text[-3000:]

    def count(self, text: str) -> int:
        with self._more:
            return self._text.count(text)

    def close(self) -> None:
        self._reader.join(PATIENCE)
        self._pipe.close()


@dataclass
class Guest:
    """A machine whose guest takes lines of shell."""

    keeper: Keeper
    process: subprocess.Popen[bytes]
    log: Log
    directory: Path
    """With the files `mconsole` and `pid`."""
    _input: socket.socket
    _lines: int = field(default=0)

    @property
    def console(self) -> Path:
        """The kernel's own socket."""
        return self.directory / "mconsole"

    def start(self, line: str) -> None:
        """Have the guest's shell do a line."""
        self._input.sendall(line.encode() + b"\n")

    def do(self, line: str) -> None:
        """The same, and wait until it is done."""
        self._lines += 1
        self.start(f'{line}; echo "done: $(({self._lines}))"')
        self.log.wait_for(f"done: {self._lines}\r\n")


@contextlib.contextmanager
def booted(*words: str, before: Sequence[str] = ()) -> Iterator[Guest]:
    """A guest that is up. `words` are added to the kernel's command line, `before` comes before its command."""
    kernel = find_kernel()
    ours, theirs = socket.socketpair()
    with contextlib.ExitStack() as stack:
        stack.enter_context(ours)
        stack.enter_context(theirs)
        keeper = stack.enter_context(Keeper())
        image = build(kernel, (), _INIT.encode(), find_busybox(), scratch=keeper.directory)
        tuned = Tuning(30_000_000, skippable(features(kernel)))
        arguments = [
            *("con=none", "ssl=none", "con0=null,fd:2", f"con1=fd:{theirs.fileno()}", "mem=48M"),
            *(f"uml_dir={keeper.directory}/", "umid=m", f"initrd={image}", *tuned.arguments(), *words),
        ]
        process = keeper.spawn(
            [*before, kernel.path, *command_line(arguments)],
            output=subprocess.PIPE,
            pass_fds=[theirs.fileno()],
            env={"TMPDIR": str(memory_directory(48 << 20)), "PATH": os.defpath, "HOME": str(keeper.directory)},
        )
        assert process.stderr is not None
        log = Log(process.stderr)
        stack.callback(log.close)
        stack.callback(keeper.close)
        log.wait_for("guest is up")
        yield Guest(keeper, process, log, keeper.directory / "m", ours)
