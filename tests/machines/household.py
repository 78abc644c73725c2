"""A user with machines: a home of their own, and the `uml` command."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.machines.directory import is_locked, read_pid
from runtime.machines.ended import ENDED
from runtime.process.processes import MARK
from tests.guest.caller import eventually
from tests.ordinary import ROOT, OrdinaryUser

BOUND = 120
"""Seconds that no command here needs."""


@dataclass
class Household:
    """Somebody with machines."""

    home: Path
    user: OrdinaryUser | None = None

    @property
    def machines(self) -> Path:
        return self.home / ".uml"

    def command(self, *arguments: str | Path) -> list[str]:
        """The command line of `uml ARGUMENTS`."""
        variables = [f"HOME={self.home}", f"XDG_RUNTIME_DIR={self.home}/run", "LANG=C.UTF-8"]
        if self.user is not None:
            line = self.user.uml(*arguments)
            place = next(i for i, word in enumerate(line) if word.startswith("PYTHONPATH="))
            return [*line[:place], "env", "-C", str(self.home), *variables, *line[place:]]
        program = [sys.executable, "-P", "-c", "from runtime.cli import main; main()"]
        return ["env", "-C", str(self.home), f"PYTHONPATH={ROOT}", *variables, *program, *map(str, arguments)]

    def uml(self, *arguments: str | Path, input: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
        """`uml ARGUMENTS` to its end."""
        streams: dict[str, Any] = {"stdin": subprocess.DEVNULL} if input is None else {"input": input}
        return subprocess.run(self.command(*arguments), capture_output=True, timeout=BOUND, check=False, **streams)

    def ok(self, *arguments: str | Path, input: bytes | None = None) -> str:
        """The output of a command that must succeed and have nothing to complain of."""
        done = self.uml(*arguments, input=input)
        assert (done.returncode, done.stderr) == (0, b""), done.stdout + done.stderr
        return str(done.stdout.decode())

    def error(self, *arguments: str | Path) -> tuple[int, str]:
        """The exit status, and the last line of what a command complains of."""
        done = self.uml(*arguments)
        assert done.stdout == b""
        line = done.stderr.decode().splitlines()[-1]
        assert line.startswith("uml: ")
        return done.returncode, line.removeprefix("uml: ")

    def ps(self) -> list[dict[str, Any]]:
        """What machines there are."""
        found: list[dict[str, Any]] = json.loads(self.ok("ps", "--json"))
        return found

    def lines(self, umid: str, line: str, text: str) -> None:
        """Wait until line `line` of a machine has shown `text`."""
        with subprocess.Popen(
            self.command("console", umid, line), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as viewer:
            try:
                assert viewer.stdout is not None
                shown = b""
                while text.encode() not in shown:
                    piece = os.read(viewer.stdout.fileno(), 65536)
                    assert piece, shown
                    shown += piece
            finally:
                viewer.kill()

    def left(self) -> list[str]:
        """What is there of machines, but for the logs of those that have ended."""
        found = [str(path) for path in (self.home / "run").iterdir()]
        found += [str(path) for path in self.machines.glob("*/*") if path.parent.name != ENDED]
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if f"{MARK}={self.home}/run".encode() in (entry / "environ").read_bytes():
                    found.append(f"process {entry.name}")
        return found

    def end_all(self) -> None:
        """End what a failed test has left."""
        for path in self.machines.glob("*"):
            pid = read_pid(path)
            if pid is not None and is_locked(path):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, 9)


@contextlib.contextmanager
def household(user: OrdinaryUser | None = None) -> Iterator[Household]:
    """Somebody new; nothing of their machines may be left at the end."""
    with tempfile.TemporaryDirectory(prefix="uml-", dir="/tmp", ignore_cleanup_errors=True) as text:
        home = Path(text)
        home.chmod(0o755)
        somebody = Household(home, user)
        (home / "run").mkdir(mode=0o700)
        if user is not None:
            for path in (home, home / "run"):
                os.chown(path, user.uid, user.gid)
        try:
            yield somebody
            assert eventually(lambda: not somebody.left()), somebody.left()
        finally:
            somebody.end_all()
            shutil.rmtree(somebody.machines, ignore_errors=True)
