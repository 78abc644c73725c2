"""`uml run -- true` against the bare kernel on the same directory by its own hostfs, with an init that powers off.

And the same in a guest that stands (`--warm`), each time once one does.

    python -m tests.benchmarks.boot [ROUNDS]
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from runtime.kernels.kernel import find_kernel
from tests.benchmarks.ratio import measure, table

INIT = """#!/bin/sh
/bin/true
exec /sbin/poweroff -f
"""


def bare(kernel: str, init: Path) -> None:
    """Boot the kernel by itself and run `true` in its first process."""
    arguments = ["mem=256M", "root=none", "rootfstype=hostfs", "rootflags=/", f"init={init}"]
    consoles = ["con=null", "ssl=null", "con0=null,fd:2", "quiet"]
    subprocess.run([kernel, *arguments, *consoles], stdin=subprocess.DEVNULL, capture_output=True, timeout=60)


class Warm:
    """Commands in guests that stand."""

    def __init__(self, command: list[str], runtime: str) -> None:
        self._environment = {**os.environ, "XDG_RUNTIME_DIR": runtime}
        self._guests = Path(runtime, "umlfs-kept")
        self._command = command
        self.run()

    def end(self) -> None:
        """None is to stand any more."""
        self._command = ["--warm=0" if word.startswith("--warm") else word for word in self._command]
        self.run()
        while self._guests.exists():
            time.sleep(0.1)

    def wait(self) -> None:
        """Until a guest stands."""
        while not list(self._guests.glob("*w")):
            time.sleep(0.02)

    def run(self) -> None:
        subprocess.run(self._command, check=True, env=self._environment)


def main(rounds: int = 9) -> None:
    """Print the table."""
    kernel = str(find_kernel().path)
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        init = Path(directory) / "init"
        init.write_text(INIT)
        init.chmod(0o755)
        command = [sys.executable, "-I", str(Path(sys.executable).parent / "uml"), "run", "--", "true"]
        subprocess.run(command, check=True)  # fills the caches that a first run fills
        warm = Warm([*command[:-2], "--warm=600", "--", "true"], directory)
        medians = measure(
            {
                "bare kernel, hostfs": lambda: bare(kernel, init),
                "uml run -- true": lambda: subprocess.run(command, check=True),
                "uml run --warm -- true": warm.run,
            },
            rounds,
            before={"uml run --warm -- true": warm.wait},
        )
        warm.end()
    print(table(medians, "bare kernel, hostfs"))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
