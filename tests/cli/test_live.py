"""Tables that are looked at again and again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

PS = [sys.executable, "-c", "from runtime.cli import main; main()", "ps"]


def test_a_terminal_sees_looks_until_interrupted(tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    try:
        command, environment = (
            [*PS, "--watch", "-d", "0.2", "--uml-dir", str(tmp_path)],
            {**os.environ, "TERM": "xterm"},
        )
        with subprocess.Popen(command, stdout=theirs, env=environment) as process:
            os.close(theirs)
            seen = b""
            while seen.count(b"UMID") < 3:
                seen += os.read(ours, 4096)
            process.send_signal(signal.SIGINT)
        assert process.returncode == 0
    finally:
        os.close(ours)


def test_a_pipe_sees_one(tmp_path: Path) -> None:
    done = subprocess.run([*PS, "--watch", "--uml-dir", tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["UMID", "PID", "STATE", "ROOT", "MEMORY", "CPU", "UP", "DEVICES"]


def test_not_with_json(tmp_path: Path) -> None:
    done = subprocess.run([*PS, "--watch", "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--watch is for a person" in done.stderr
