"""Who holds something: told by the command that its owner typed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from runtime.host import own
from tests.guest.caller import eventually
from tests.ordinary import ROOT
from umlfs.host.holder import described

IMAGE = "image"
COMMANDS = {
    "the wrapper": [str(ROOT / "uml"), "serve", "nbd", IMAGE, "--socket", "socket"],
    "our own": own.uml("serve", "nbd", IMAGE, "--socket", "socket"),
}


@pytest.mark.parametrize("how", COMMANDS)
def test_a_command_of_ours(how: str, tmp_path: Path) -> None:
    (tmp_path / IMAGE).write_bytes(bytes(1 << 20))
    quiet = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(COMMANDS[how], cwd=tmp_path, env=environment, **quiet) as server:  # type: ignore[call-overload]
        try:
            assert eventually((tmp_path / "socket").exists)
            assert described(server.pid) == f"'uml serve nbd image --socket socket' (pid {server.pid})"
        finally:
            server.terminate()


def test_another_program() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        assert eventually(lambda: described(process.pid) == f"sleep (pid {process.pid})")
        process.kill()


def test_nobody() -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
        assert described(process.pid) is None
