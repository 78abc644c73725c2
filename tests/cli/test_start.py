"""`./uml` interrupted while it starts: it ends, as the caller's shell expects, and without a traceback."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from tests.ordinary import ROOT

LONG = 120
INTERRUPTED = {-signal.SIGINT, 128 + signal.SIGINT}
UML = str(ROOT / "uml")


def test_an_interrupt_while_python_starts_waits_for_the_program() -> None:
    script = f"kill -INT $$; exec {UML} --version"
    done = subprocess.run(
        ["env", "--block-signal=INT", "sh", "-c", script], capture_output=True, text=True, timeout=LONG, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


def test_an_interrupt_that_the_caller_ignores_is_ignored() -> None:
    script = f"trap '' INT; kill -INT $$; {UML} --version; kill -INT $$; exec grep SigIgn /proc/self/status"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=LONG, check=True)
    assert done.stdout.startswith("uml ")
    assert done.stderr == ""


CLEANING_UP = """
import time
from umlfs import entry

class Interrupted:
    def __del__(self):
        raise KeyboardInterrupt

entry.raise_interrupts()
try:
    Interrupted()
    time.sleep(600)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_an_interrupt_while_python_cleans_up_is_not_lost() -> None:
    """By default Python shows it, and goes on."""
    script = f"import signal; signal.signal(signal.SIGINT, signal.SIG_DFL)\n{CLEANING_UP}"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=LONG, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "interrupted\n", "")


@pytest.mark.parametrize("command", [["run", "--", "sleep", "60"], ["ls", "/"]])
def test_interrupted_at_any_moment_of_its_first_second(command: list[str]) -> None:
    for moment in (0.02, 0.06, 0.1, 0.16, 0.25, 0.4, 0.65, 1):
        with subprocess.Popen([UML, *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
            time.sleep(moment)
            process.send_signal(signal.SIGINT)
            assert process.stderr
            err = process.stderr.read()
        assert "Traceback" not in err, moment
        assert "KeyboardInterrupt" not in err, moment
        assert process.returncode in (INTERRUPTED if command[0] == "run" else {*INTERRUPTED, 0}), (moment, err)
