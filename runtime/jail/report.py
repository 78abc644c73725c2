"""What the launcher says of its work."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, field
from typing import Final

from runtime.jail.layers import Layer
from umlfs.errors import UmlError

PIECE: Final = 65536
_FAILED: Final = {
    "join": "the group lets nobody in",
    "unshare": "this process may not make them",
    "map": "this process may not map its user",
    "bind": "{word} cannot be mounted",
    "tmpfs": "{word} cannot be mounted",
    "root": "nothing can be mounted",
    "devpts": "/dev/pts cannot be mounted",
    "pivot": "the root cannot be changed",
}
"""What to say of a step that fails."""


@dataclass(slots=True)
class JailReport:
    """All of it."""

    kernel: int = 0
    """The kernel's process number; 0 if it was not started."""
    first: int = 0
    """That of process 1 of its namespace; 0 if it has none."""
    directory: int = -1
    """A descriptor of the directory `grants.OWN`, as the kernel sees it."""
    refusals: int = -1
    """A descriptor that tells of refused system calls, see `refusals.py`."""
    present: list[Layer] = field(default_factory=list)
    absent: dict[Layer, str] = field(default_factory=dict)
    failure: str = ""
    """Why the kernel was not started."""

    def take(self, line: str) -> None:
        """One line of it."""
        word, _, rest = line.partition(" ")
        fields = rest.split(" ", 3)
        if word == "ok":
            self.present.append(Layer(rest))
        elif word == "no":
            self._miss(*fields)
        elif word == "first":
            self.first = int(rest)
        elif word == "pid":
            self.kernel, self.first = int(fields[0]), int(fields[1])
        elif word in ("exec", "fork"):
            self.failure = os.strerror(int(rest))

    def _miss(self, layer: str, number: str, step: str, word: str = "") -> None:
        what = _FAILED.get(step, "{step} {word}").format(step=step, word=word)
        why = f"{what.strip()}: {os.strerror(int(number))}" if int(number) else f"it needs {word}"
        if layer:
            self.absent[Layer(layer)] = why
        else:
            self.failure = why


def read(connection: socket.socket) -> JailReport:
    """The launcher's report, up to the moment at which the kernel runs, or it is sure that it does not. Blocks for some
    milliseconds. UmlError for one that is none."""
    report = JailReport()
    text, found = b"", list[int]()
    while True:
        piece, descriptors, _, _ = socket.recv_fds(connection, PIECE, 1)
        found += descriptors
        if not piece:
            break
        text += piece
    report.directory, report.refusals, *_ = *found, -1, -1
    try:
        for line in text.decode(errors="surrogateescape").splitlines():
            report.take(line)
    except (ValueError, TypeError) as error:
        raise UmlError(f"the jail's launcher said nonsense: {error}", "empty the cache, ~/.cache/umlfs") from None
    return report
