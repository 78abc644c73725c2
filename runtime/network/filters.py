"""`bpffile=` of a `vecN:` word: which frames of an interface a card sees.

The kernel takes the path of a compiled filter, an array of struct sock_filter. A person writes what tcpdump takes, and
that compiles it.
"""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from umlfs.errors import UsageError
from umlfs.host.programs import run_program

OPTION: Final = "bpffile"
PROGRAM: Final = "tcpdump"
SECONDS: Final = 10.0
_INSTRUCTION: Final = struct.Struct("=HBBI")
_WORD: Final = re.compile(rf"(vec\d+:.*?\b{OPTION}=)([^,]*)(.*)\Z", re.DOTALL)


def is_file(value: str) -> bool:
    """Whether the value names a file, and is no expression."""
    return os.path.isabs(value) or os.path.exists(value)


def check(word: str, value: str) -> None:
    """UsageError for a value that is neither a file that may be read nor an expression."""
    if not is_file(value):
        compiled(word, value)
    elif not os.access(value, os.R_OK):
        raise UsageError(f"{word}: {value} cannot be read", "name a file that there is, or an expression of tcpdump")


def compiled(word: str, expression: str) -> bytes:
    """The filter, as the kernel takes it. UsageError for what tcpdump does not take, or without one."""
    program = shutil.which(PROGRAM, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
    if program is None:
        raise UsageError(f"{word}: no {PROGRAM} on this host to compile the filter", f"apt-get install {PROGRAM}")
    words = [program, "-ddd", "-y", "EN10MB", "--", expression]
    done = run_program(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=SECONDS)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise UsageError(f"{word}: {said[-1] if said else 'no filter'}", "write it as for tcpdump: bpffile=tcp port 80")
    rows = done.stdout.decode().splitlines()[1:]
    return b"".join(_INSTRUCTION.pack(*map(int, row.split())) for row in rows)


def filed(words: Iterable[str], directory: Path, *, look_only: bool) -> list[str]:
    """The kernel's words, with files in `directory` in the place of expressions. UsageError."""
    found = []
    for number, word in enumerate(words):
        match = _WORD.match(word)
        if match is None or is_file(match[2]):
            found.append(word)
            continue
        path = directory / f"filter{number}"
        if not look_only:
            path.write_bytes(compiled(word, match[2]))
        found.append(f"{match[1]}{path}{match[3]}")
    return found
