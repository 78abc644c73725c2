"""Kernels of a cluster that nobody looks after any more: both who did and the keeper that stood by were killed."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from pathlib import Path
from typing import Final

from runtime.process.processes import MARK

WORD: Final = "umlcluster.node="
"""The word on a kernel's command line that names the node: to the kernel an option of a module that is not there."""


def end(umid: str) -> None:
    """Kill the kernels of node `umid`, and remove what they had on the host."""
    for pid in _kernels(umid):
        directory = _directory(pid)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(os.getpgid(pid), signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
        if directory is not None:
            shutil.rmtree(directory, ignore_errors=True)


def _kernels(umid: str) -> list[int]:
    """The processes of this user that have the word among theirs."""
    word, found = f"{WORD}{umid}".encode(), []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if entry.stat().st_uid == os.geteuid() and word in (entry / "cmdline").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
    return found


def _directory(pid: int) -> Path | None:
    """Where a machine's sockets are: its kernel's environment names the directory."""
    with contextlib.suppress(OSError):
        for variable in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            name, _, value = variable.partition(b"=")
            path = Path(os.fsdecode(value))
            if name == MARK.encode() and path.name.startswith("umlfs-") and path.is_dir():
                return path
    return None
