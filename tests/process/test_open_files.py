"""What serves may open more files than logins allow; what it starts may not."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import os, resource, subprocess, sys
from pathlib import Path
from runtime.process.keeper import Keeper
from runtime.process.open_files import OPEN_FILES_MAX, callers_limit, raise_limit

print(callers_limit())
raise_limit()
raise_limit()
print(min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], OPEN_FILES_MAX), callers_limit())
with Keeper(Path(sys.argv[1])) as keeper:
    kernel = keeper.spawn(["/bin/sh", "-c", "ulimit -Sn; ulimit -Hn"], output=subprocess.PIPE)
    print(kernel.stderr.read().decode())
    kernel.stderr.close()
"""


def said(tmp_path: Path, soft: int, hard: int) -> list[str]:
    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, preexec_fn=few, cwd=root, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_commands_get_the_limit_of_the_caller(tmp_path: Path) -> None:
    assert said(tmp_path, 300, 700) == ["300", "700", "300", "300", "700"]


def test_a_limit_that_cannot_be_raised(tmp_path: Path) -> None:
    assert said(tmp_path, 400, 400) == ["400", "400", "400", "400", "400"]
