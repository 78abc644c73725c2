"""A guest that sends what it likes: names, contents and orders that no plugin expects. All of it is answered."""

from __future__ import annotations

import errno
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.externfs.driver import refused
from tests.externfs.memory import MemoryDirectory
from umlfs.errors import UmlError
from umlfs.externfs.filesystem import NodeFilesystem
from umlfs.externfs.names import quoted, unquoted
from umlfs.externfs.node import Child, Directory, File, Node
from umlfs.externfs.sql.database import Column, Refused, Table
from umlfs.externfs.sql.keys import key_name, named_key
from umlfs.externfs.sql.kind import kind
from umlfs.externfs.sql.values import csv_line, csv_rows
from umlfs.filesystem import ROOT, Caller, Entry, SetAttr
from umlfs.sources import OpenOptions

NAMES = st.binary(min_size=1, max_size=255).filter(lambda name: b"/" not in name and b"\0" not in name)
TEXTS = st.text(max_size=60)
VALUES = st.one_of(TEXTS, st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), st.binary(max_size=40))


@given(TEXTS)
def test_any_text_has_one_name(text: str) -> None:
    name = quoted(text)
    assert "/" not in name
    assert "\0" not in name
    assert name not in ("", ".", "..")
    assert unquoted(name) == text


@given(st.lists(VALUES, min_size=1, max_size=3))
def test_any_key_has_one_name(key: list[Any]) -> None:
    columns = tuple(Column(f"c{number}", "", typed=False) for number in range(len(key)))
    table = Table("t", columns, tuple(column.name for column in columns))
    name = key_name(table, tuple(key))
    assert "/" not in name
    found = named_key(table, name)
    assert list(map(repr, found)) == list(map(repr, key))


@given(st.lists(st.lists(st.one_of(st.none(), TEXTS, st.binary(max_size=20)), min_size=1, max_size=4), max_size=4))
def test_csv_comes_back(rows: list[list[Any]]) -> None:
    import io

    data = "".join(map(csv_line, rows)).encode(errors="surrogatepass")
    try:
        data.decode()
    except UnicodeDecodeError:
        return
    assert list(csv_rows(io.BytesIO(data))) == rows


@given(st.binary(max_size=200))
def test_any_csv_is_read_or_refused(data: bytes) -> None:
    import io

    try:
        list(csv_rows(io.BytesIO(data)))
    except Refused as error:
        assert error.errno in (errno.EINVAL, errno.EFBIG)  # noqa: PT017


STEPS = st.lists(st.tuples(st.integers(0, 9), NAMES, NAMES, st.binary(max_size=50)), max_size=25)


async def _attack(filesystem: Any, steps: list[tuple[int, bytes, bytes, bytes]]) -> None:
    """Do whatever is asked at places that are there, or not; only OSError comes of it."""
    inos = [ROOT]
    caller = Caller()
    for step, name, other, data in steps:
        ino = inos[data[0] % len(inos)] if data else ROOT
        try:
            if step == 0:
                inos.append((await filesystem.mkdir(ino, name, 0o755, 0, caller)).ino)
            elif step == 1:
                entry, opened = await filesystem.create(ino, name, 0o644, os.O_RDWR, 0, caller)
                inos.append(entry.ino)
                await filesystem.write_from(entry.ino, opened.handle, len(other), [memoryview(data)])
                await filesystem.flush(entry.ino, opened.handle)
                await filesystem.release(entry.ino, opened.handle)
            elif step in (2, 3):
                inos.append((await filesystem.lookup(ino, name if step == 2 else other)).ino)
            elif step == 4:
                await filesystem.rename(ino, name, inos[-1], other, len(data) % 8)
            elif step == 5:
                await filesystem.unlink(ino, name)
            elif step == 6:
                await filesystem.setattr(ino, SetAttr(size=len(data) << 30, mode=0o777))
            elif step == 7:
                await filesystem.symlink(ino, name, data, caller)
            elif step == 8:
                handle = (await filesystem.opendir(ino)).handle
                await filesystem.readdir(ino, handle, len(data), lambda *_: False, True)
                await filesystem.releasedir(ino, handle)
            else:
                await filesystem.rmdir(ino, name)
        except OSError:
            continue


@given(STEPS)
@pytest.mark.logs_warnings
async def test_any_order_of_requests_to_a_database(steps: list[tuple[int, bytes, bytes, bytes]]) -> None:
    path = Path(f"/tmp/umlfs-hostile-{os.getpid()}.sqlite")
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE t (id integer PRIMARY KEY, name text NOT NULL)")
        database.execute("INSERT INTO t VALUES (1, 'kept')")
    try:
        filesystem = await kind.open(f"{path},rw,queries", OpenOptions())
        for place in (b"t", b"queries"):
            await filesystem.lookup(ROOT, place)
        await _attack(filesystem, steps)
        await filesystem.close()
        with closing(sqlite3.connect(path)) as database:
            assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert database.execute("SELECT name FROM t WHERE id = 1").fetchall() == [("kept",)]
    finally:
        path.unlink(missing_ok=True)


@given(STEPS)
async def test_any_order_of_requests_in_memory(steps: list[tuple[int, bytes, bytes, bytes]]) -> None:
    filesystem = NodeFilesystem(MemoryDirectory())
    await _attack(filesystem, [step for step in steps if step[0] != 6])
    await filesystem.close()


class Broken(Directory):
    """A plugin with every bug there is."""

    def children(self) -> list[Child]:
        return [("a/b", Mute()), ("good", Mute()), ("", Mute()), ("x" * 300, Mute())]

    def lookup(self, name: str) -> Node:
        if name == "mute":
            return Mute()
        raise ZeroDivisionError("a bug")


class Mute(File):
    """Reads what it never gets to the end of."""

    def read(self) -> bytes:
        import time

        time.sleep(0.5)
        return b"late"

    size = 1


@pytest.mark.logs_warnings
async def test_a_plugin_with_bugs(caplog: pytest.LogCaptureFixture) -> None:
    filesystem = NodeFilesystem(Broken(), name="broken", time_limit=0.1)
    with refused(errno.EIO):
        await filesystem.lookup(ROOT, b"nothing")
    assert [record.getMessage() for record in caplog.records] == ["broken: Broken.lookup: ZeroDivisionError: a bug"]
    handle = (await filesystem.opendir(ROOT)).handle
    seen: list[bytes] = []

    def add(name: bytes, offset: int, ino: int, mode: int, entry: Entry | None) -> bool:
        seen.append(name)
        return True

    with refused(errno.EIO, errno.ENAMETOOLONG):
        await filesystem.readdir(ROOT, handle, 0, add)
    assert seen == [b".", b"..", b"good"]
    entry = await filesystem.lookup(ROOT, b"mute")
    with refused(errno.EIO):
        await filesystem.open(entry.ino, os.O_RDONLY)
    await filesystem.close()


async def test_what_is_written_is_bounded() -> None:
    class Whole(File):
        def write(self, data: bytes) -> None:
            raise AssertionError

    class One(Directory):
        def children(self) -> list[Child]:
            return [("file", Whole())]

    filesystem = NodeFilesystem(One())
    entry = await filesystem.lookup(ROOT, b"file")
    for _ in range(15):
        handle = (await filesystem.open(entry.ino, os.O_WRONLY)).handle
        await filesystem.write_from(entry.ino, handle, (16 << 20) - 1, [memoryview(b"x")])
        with refused(errno.EFBIG):
            await filesystem.write_from(entry.ino, handle, 1 << 40, [memoryview(b"x")])
    with refused(errno.ENOSPC):
        for _ in range(2):
            handle = (await filesystem.open(entry.ino, os.O_WRONLY)).handle
            await filesystem.write_from(entry.ino, handle, (16 << 20) - 1, [memoryview(b"x")])
    filesystem.disconnect()
    await filesystem.close()


def test_a_missing_driver_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "psycopg", None)
    with pytest.raises(UmlError, match=r"the Python package 'psycopg' is missing; pip install 'umlfs\[sql\]'"):
        __import__("trio").run(kind.open, "postgresql://x/y", OpenOptions())
