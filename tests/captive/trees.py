"""Trees of a program, as it would write them."""

from __future__ import annotations

import time
from collections.abc import Iterable

from umlfs.externfs.node import Child, Directory, File, Node, Text
from umlfs.filesystem import Caller


class Note(File):
    mode = 0o666

    def __init__(self, notes: dict[str, bytes], name: str) -> None:
        self.notes, self.name = notes, name

    @property
    def key(self) -> str:
        return self.name

    def read(self) -> bytes:
        return self.notes[self.name]

    def write(self, data: bytes) -> None:
        self.notes[self.name] = data


class Notes(Directory):
    """A dictionary as files."""

    mode = 0o777

    def __init__(self, notes: dict[str, bytes]) -> None:
        self.notes = notes

    def children(self) -> Iterable[Child]:
        return [(name, Note(self.notes, name)) for name in self.notes]

    def create(self, name: str, mode: int, caller: Caller) -> Node:
        self.notes[name] = b""
        return Note(self.notes, name)

    def remove(self, name: str, node: Node) -> None:
        del self.notes[name]


class Bad(Directory):
    """Raises, hangs, and is well."""

    class Raises(File):
        def read(self) -> bytes:
            raise ZeroDivisionError("no good")

    class Hangs(File):
        def read(self) -> bytes:
            time.sleep(3)
            return b"late"

    def children(self) -> Iterable[Child]:
        return [("raises", self.Raises()), ("hangs", self.Hangs()), ("fine", Text("fine\n"))]
