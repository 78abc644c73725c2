"""Kernels of a cluster that nobody looks after any more: both who did and the keeper that stood by were killed."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from runtime.process.memory import memory_directory
from umlfs.errors import UmlError

WORD: Final = "umlcluster.node="
"""The word on a kernel's command line that names the node: to the kernel an option of a module that is not there."""
_ARCHIVE: Final = re.compile(rb"initrd=(/.*/umlfs-[0-9a-f]{12})/[^/]+\Z")
"""The word that tells the directory of a machine's sockets."""
_NAME: Final = re.compile(r"umlfs-[0-9a-f]{12}\Z")


def end(umid: str) -> None:
    """Kill the kernels of node `umid`."""
    for pid, _ in _kernels(umid):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(os.getpgid(pid), signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def directories(umid: str) -> list[str]:
    """Where the kernels of node `umid` have their sockets."""
    return sorted({directory for _, directory in _kernels(umid)})


def remove(paths: Iterable[str]) -> None:
    """Remove such directories, and those of the memory of the same guests."""
    for path in map(Path, paths):
        if _NAME.match(path.name):
            shutil.rmtree(path, ignore_errors=True)
            with contextlib.suppress(UmlError):
                shutil.rmtree(memory_directory() / f"{path.name}.memory", ignore_errors=True)


def _kernels(umid: str) -> list[tuple[int, str]]:
    """The processes that have the word among theirs, and the directories of their sockets, which are this user's: what
    another calls by the same name is not root's to end."""
    word, found = f"{WORD}{umid}".encode(), []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                directory = next((match[1] for match in map(_ARCHIVE.match, words) if match), b"")
                if word in words and directory and os.stat(directory).st_uid == os.geteuid():
                    found.append((int(entry.name), os.fsdecode(directory)))
    return found
