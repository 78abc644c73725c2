"""`uml run -- true` against the bare kernel on the same directory by its own hostfs, with an init that powers off.

python -m tests.benchmarks.boot [ROUNDS]
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
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


def main(rounds: int = 9) -> None:
    """Print the table."""
    kernel = str(find_kernel().path)
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        init = Path(directory) / "init"
        init.write_text(INIT)
        init.chmod(0o755)
        command = [sys.executable, "-I", str(Path(sys.executable).parent / "uml"), "run", "--", "true"]
        subprocess.run(command, check=True)  # fills the caches that a first run fills
        medians = measure(
            {
                "bare kernel, hostfs": lambda: bare(kernel, init),
                "uml run -- true": lambda: subprocess.run(command, check=True),
            },
            rounds,
        )
    print(table(medians, "bare kernel, hostfs"))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
