"""What the jail costs: `uml run -- true`, forks and files in a guest, with it and without.

python -m tests.benchmarks.jail [ROUNDS]
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.benchmarks.ratio import measure

WORK: Final = {
    "true": "true",
    "2000 forks": "i=0; while [ $i -lt 2000 ]; do /bin/true; i=$((i+1)); done",
    "find /usr/lib": "find /usr/lib >/dev/null",
}
MODES: Final = ("auto", "off")


def guest(mode: str, script: str) -> Callable[[], object]:
    """Runs `script` in a guest."""
    uml = [sys.executable, "-I", str(Path(sys.executable).parent / "uml")]
    return lambda: subprocess.run([*uml, "run", f"--jail={mode}", "--", "sh", "-c", script], check=True)


def main(rounds: int = 9) -> None:
    """Print the table."""
    for name, script in WORK.items():
        for mode in MODES:
            guest(mode, script)()  # fills the caches that a first run fills
        medians = measure({mode: guest(mode, script) for mode in MODES}, rounds)
        jailed, free = medians["auto"], medians["off"]
        print(
            f"{name:<16} jail {jailed:.3f}s   off {free:.3f}s   {(jailed - free) * 1000:+.0f} ms   {jailed / free:.3f}x"
        )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
