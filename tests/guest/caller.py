"""Those who call `uml`: the user who runs the tests, and an ordinary one."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runtime.process.processes import MARK
from tests.ordinary import ROOT, OrdinaryUser

BOUND = 120
"""Seconds that no command here needs."""


def eventually(condition: Callable[[], bool], seconds: float = 20) -> bool:
    """Wait until `condition` holds; False if it does not come to that within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@dataclass
class Caller:
    """Somebody who runs `uml`, with directories of their own."""

    user: OrdinaryUser | None
    runtime: Path
    """XDG_RUNTIME_DIR: whatever machines need lies here, and nothing must be left."""
    directory: Path
    """The working directory of commands."""
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def python(self) -> Path:
        """An interpreter that is there in a guest on the host's root, too."""
        return self.user.python if self.user else Path(sys.executable)

    def command(self, *arguments: str | Path) -> list[str]:
        """The command line of `uml ARGUMENTS`."""
        variables = {"XDG_RUNTIME_DIR": str(self.runtime), "LANG": "C.UTF-8", **self.variables}
        words = [f"{name}={value}" for name, value in variables.items()]
        if self.user is not None:
            line = self.user.uml(*arguments)
            place = next(i for i, word in enumerate(line) if word.startswith("PYTHONPATH="))
            words += ["-C", str(self.directory)]
            return [*line[:place], "env", *words[-2:], *words[:-2], *line[place:]]
        program = [sys.executable, "-P", "-c", "from runtime.cli import main; main()"]
        return ["env", "-C", str(self.directory), f"PYTHONPATH={ROOT}", *words, *program, *map(str, arguments)]

    def run(
        self, *arguments: str | Path, input: bytes | None = None, **options: Any
    ) -> subprocess.CompletedProcess[bytes]:
        """`uml run ARGUMENTS` to its end; without input its standard input is /dev/null."""
        streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        if input is None:
            streams.setdefault("stdin", subprocess.DEVNULL)
        return subprocess.run(self.command("run", *arguments), input=input, timeout=BOUND, check=False, **streams)

    def finish(self, line: Sequence[str], seconds: float = BOUND) -> subprocess.CompletedProcess[bytes]:
        """A command line to its end, without input."""
        streams = {"stdin": subprocess.DEVNULL, "capture_output": True}
        return subprocess.run(line, timeout=seconds, check=False, **streams)  # type: ignore[call-overload, no-any-return]

    def output(self, *arguments: str | Path, **options: Any) -> str:
        """The output of a command that must not fail and has nothing to complain of."""
        done = self.run(*arguments, **options)
        assert (done.returncode, done.stderr) == (0, b"")
        return str(done.stdout.decode(errors="surrogateescape"))

    def error(self, *arguments: str | Path, **options: Any) -> tuple[int, str]:
        """Exit status and the one line of standard error of a command that gives no output."""
        done = self.run(*arguments, **options)
        assert done.stdout in (b"", None)
        text = done.stderr.decode()
        assert text.startswith("uml: ")
        assert text.endswith("\n")
        assert text.count("\n") == 1
        return done.returncode, text.removeprefix("uml: ").rstrip()

    @contextlib.contextmanager
    def started(self, *arguments: str | Path, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
        """`uml run ARGUMENTS`, killed at the end if it still runs then."""
        streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        with subprocess.Popen(self.command("run", *arguments), **streams) as process:
            try:
                yield process
            finally:
                process.kill()

    def left(self) -> list[str]:
        """Processes, sockets and directories of machines that are still there."""
        found = [str(path) for path in self.runtime.iterdir()]
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                marked = f"{MARK}={self.runtime}/".encode() in (entry / "environ").read_bytes()
                if marked or bytes(self.runtime) in (entry / "cmdline").read_bytes():
                    found.append(f"process {entry.name}")
        return found

    def make(self, name: str, files: Mapping[str, str] | Sequence[str] = ()) -> Path:
        """A directory of the caller's with these files (or empty ones) in it."""
        top = self.directory / name
        contents = files if isinstance(files, Mapping) else dict.fromkeys(files, "")
        top.mkdir()
        for path, text in contents.items():
            (top / path).parent.mkdir(parents=True, exist_ok=True)
            (top / path).write_text(text)
        self.own(top)
        return top

    def own(self, top: Path) -> None:
        """Give the caller what lies below `top`."""
        if self.user is not None:
            for path in (top, *top.rglob("*")):
                os.chown(path, self.user.uid, self.user.gid, follow_symlinks=False)


@contextlib.contextmanager
def caller_as(user: OrdinaryUser | None) -> Iterator[Caller]:
    """A caller with fresh directories, which must be as they were at the end: no machine may leave a trace."""
    with tempfile.TemporaryDirectory(prefix="uml-", dir="/tmp") as text:
        top = Path(text)
        top.chmod(0o755)
        caller = Caller(user, top / "run", top / "work")
        for path in (caller.runtime, caller.directory):
            path.mkdir(mode=0o700)
            caller.own(path)
        yield caller
        assert eventually(lambda: not caller.left()), caller.left()
        shutil.rmtree(caller.directory)
