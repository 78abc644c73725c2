"""What the framework of trees costs for each request, and listing a table against sqlite3.

python -m tests.benchmarks.externfs
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

import trio

from tests.externfs.memory import MemoryDirectory
from tests.mounts.server import UML, mounted
from umlfs.externfs.filesystem import NodeFilesystem
from umlfs.externfs.node import Fixed, Text
from umlfs.filesystem import ROOT, Caller, DirSink, Entry, Filesystem

_TURNS = 5_000
_ROWS = 100_000


async def _each(name: str, work: Callable[[], Awaitable[object]]) -> None:
    best = float("inf")
    for _ in range(3):
        start = time.process_time()  # others may run on this machine meanwhile
        for _ in range(_TURNS):
            await work()
        best = min(best, (time.process_time() - start) / _TURNS)
    print(f"{name:28} {best * 1e6:6.2f} µs")


def _taking(count: int) -> DirSink:
    left = count

    def add(name: bytes, offset: int, ino: int, mode: int, entry: Entry | None) -> bool:
        nonlocal left
        left -= 1
        return left >= 0

    return add


async def requests() -> None:
    """Each kind of request to nodes that take no time themselves."""
    filesystem: Filesystem = NodeFilesystem(Fixed({"file": Text(b"x" * 4096), "dir": Fixed({})}))
    entry = await filesystem.lookup(ROOT, b"file")
    opened = await filesystem.open(entry.ino, os.O_RDONLY)
    buffer = memoryview(bytearray(4096))

    async def lookup() -> None:
        found = await filesystem.lookup(ROOT, b"file")
        filesystem.forget(found.ino, 1)

    async def open_and_release() -> None:
        handle = (await filesystem.open(entry.ino, os.O_RDONLY)).handle
        await filesystem.release(entry.ino, handle)

    async def listing() -> None:
        handle = (await filesystem.opendir(ROOT)).handle
        await filesystem.readdir(ROOT, handle, 0, _taking(10), True)
        await filesystem.releasedir(ROOT, handle)

    await _each("lookup, forget", lookup)
    await _each("getattr", lambda: filesystem.getattr(entry.ino))
    await _each("open, release", open_and_release)
    await _each("read of 4 KiB", lambda: filesystem.read_into(entry.ino, opened.handle, 0, [buffer]))
    await _each("list two names with attr", listing)
    memory = NodeFilesystem(MemoryDirectory())
    made, handle = await memory.create(ROOT, b"file", 0o644, os.O_RDWR, 0, Caller())
    await _each("write of 4 KiB", lambda: memory.write_from(made.ino, handle.handle, 0, [buffer]))


def rows(directory: Path) -> None:
    """`find` over the rows of a table, and sqlite3 that selects them."""
    path, there = directory / "rows.sqlite", directory / "mounted"
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE t (id integer PRIMARY KEY, name text, value text)")
        made = ((number, f"name of {number}", "v" * 100) for number in range(_ROWS))
        database.executemany("INSERT INTO t VALUES (?, ?, ?)", made)
    there.mkdir()

    def took(what: str, script: str) -> None:
        start = time.perf_counter()
        subprocess.run(["sh", "-c", script], check=True, stdout=subprocess.DEVNULL)
        print(f"{what:44} {time.perf_counter() - start:6.2f} s")

    uml = f"{sys.executable} -c '{UML[2]}'"
    with mounted(f"sql:{path}", there):
        for _ in range(2):
            took("sqlite3 'select *' | wc", f"sqlite3 {path} 'select * from t' | wc")
            took("find rows -maxdepth 1, mounted", f"find {there}/t/rows -maxdepth 1 | wc")
            took("wc all.csv, mounted", f"wc {there}/t/all.csv")
    took("uml find, names of rows", f"cd {Path(__file__).parents[2]}; {uml} ls sql:{path}:/t/rows | wc")


def main() -> None:
    trio.run(requests)
    with tempfile.TemporaryDirectory() as directory:
        rows(Path(directory))


if __name__ == "__main__":
    main()
