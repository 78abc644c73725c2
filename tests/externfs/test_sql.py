"""`sql:` on SQLite and on a PostgreSQL server: the same tree, with the same words."""

from __future__ import annotations

import errno
import json
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
import trio

from tests.externfs.driver import driving, refused
from tests.mounts.server import mounted
from umlfs import sources
from umlfs.errors import UmlError, UsageError

USERS = """
CREATE TABLE users (id integer PRIMARY KEY, name text NOT NULL, age integer CHECK (age > 0), photo %s,
                    boss integer REFERENCES users (id));
INSERT INTO users (id, name, age, photo, boss) VALUES (1, 'Ada', 36, %s, NULL);
INSERT INTO users (id, name, age, photo, boss) VALUES (2, 'Bob/B "x", é', NULL, NULL, 1);
CREATE TABLE pairs (a text, b integer, v text, PRIMARY KEY (a, b));
INSERT INTO pairs VALUES ('x,y', 1, ''), ('..', 2, NULL), ('', 3, 'line' || chr(10) || 'two');
CREATE TABLE bare (x text);
INSERT INTO bare VALUES ('one'), ('one'), (NULL);
CREATE VIEW names AS SELECT name FROM users;
CREATE TABLE "od/d ""t"" s" (id integer PRIMARY KEY, "a/b" text);
INSERT INTO "od/d ""t"" s" VALUES (1, 'odd');
"""


@dataclass
class Base:
    """A database of the test's."""

    word: str
    query: Callable[[str], list[tuple[Any, ...]]]


def sqlite_base(path: Path, script: str = USERS) -> Base:
    with closing(sqlite3.connect(path)) as database:
        database.create_function("chr", 1, chr)
        database.executescript(script % ("blob", "x'00ff0a'") if "%s" in script else script)

    def query(sql: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(path)) as database:
            return database.execute(sql).fetchall()

    return Base(f"sql:{path}", query)


def postgres_base(url: str, script: str = USERS) -> Base:
    def query(sql: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(url, autocommit=True) as connection:
            cursor = connection.execute(sql.encode())
            return cursor.fetchall() if cursor.description else []

    query("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    query(script.replace("%s", "bytea", 1).replace("%s", "'\\x00ff0a'"))
    return Base(f"sql:{url}", query)


@pytest.fixture(params=["sqlite", "postgres"])
def base(request: pytest.FixtureRequest, tmp_path: Path, postgres: str) -> Iterator[Base]:
    if request.param == "sqlite":
        yield sqlite_base(tmp_path / "base.sqlite")
    else:
        yield postgres_base(postgres)


async def test_reading(base: Base) -> None:
    async with driving(base.word) as tree:
        assert set(await tree.ls()) == {"users", "pairs", "bare", "names", 'od%2Fd "t" s', "queries"}
        assert set(await tree.ls("users")) == {"schema.sql", "all.csv", "all.jsonl", "rows"}
        assert await tree.ls("users/rows") == ["1", "2"]
        assert await tree.ls("users/rows/1") == ["age", "id", "name", "photo"]
        assert await tree.ls("users/rows/2") == ["boss", "boss@", "id", "name"]
        assert await tree.cat("users/rows/1/photo") == b"\0\xff\n"
        assert await tree.cat("users/rows/2/name") == 'Bob/B "x", é'.encode()
        assert (await tree.stat("users/rows/1/age")).size == 2
        assert await tree.readlink("users/rows/2/boss@") == "../../../users/rows/1"
        assert sorted(await tree.ls("pairs/rows")) == ["%,3", "%2E.,2", "x%2Cy,1"]
        assert await tree.cat("pairs/rows/%,3/v") == b"line\ntwo"
        assert await tree.cat("pairs/rows/x%2Cy,1/v") == b""
        assert len(await tree.ls("bare/rows")) == 3
        assert "rows" not in await tree.ls("names")
        assert await tree.cat("names/all.csv") == 'name\r\nAda\r\n"Bob/B ""x"", é"\r\n'.encode()
        assert await tree.cat('od%2Fd "t" s/rows/1/a%2Fb') == b"odd"
        assert json.loads(await tree.cat("users/rows/1.json"))["photo"] == {"$bytes": "AP8K"}
        assert (await tree.cat("users/schema.sql")).startswith(b"CREATE TABLE ")
        assert await tree.ls("users/by/name") == ["Ada", 'Bob%2FB "x", é']
        assert await tree.ls("users/by/name/Ada") == ["1"]
        assert await tree.readlink("users/by/name/Ada/1") == "../../../rows/1"


async def test_what_is_not_there(base: Base) -> None:
    async with driving(base.word) as tree:
        for path in (
            "nothing",
            "users/rows/3",
            "users/rows/01",
            "users/rows/1 ",
            "users/rows/abc",
            "users/rows/1;drop table users",
            "users/rows/%n",
            "users/rows/1/nothing",
            "users/rows/1/boss",
            "users/by/nothing",
            "users/by/name/Eve",
            "users/by/age/abc",
            "users/nothing",
            "pairs/rows/x,y,1",
            "pairs/rows/x%2cy,1",
            "names/rows",
            "queries/x",
        ):
            with refused(errno.ENOENT, errno.EINVAL):
                await tree.cat(path)
        assert await tree.ls("users/rows") == ["1", "2"]


async def test_only_with_rw(base: Base) -> None:
    async with driving(base.word) as tree:
        assert tree.fs.traits.read_only
        with refused(errno.EROFS, errno.EPERM, errno.EACCES):
            await tree.put("users/rows/1/name", b"Eve")
    assert base.query("SELECT name FROM users WHERE id = 1") == [("Ada",)]


async def test_writing(base: Base) -> None:
    async with driving(f"{base.word},rw") as tree:
        await tree.put("users/rows/1/name", "Ada Łovelace".encode())
        await tree.put("users/rows/1/age", b"37\n")
        await tree.put("users/rows/2/photo", b"\xff" * 1000)
        await tree.put("users/rows/2.json", b'{"age": 5, "boss": null}')
        await tree.mkdir("users/rows/7")
        await tree.put("users/rows/7/name", b"Eve")
        await tree.put("users/rows/9.json", b'{"name": "Joe", "boss": 7}')
        await tree.mv("users/rows/2", "users/rows/3")
        assert await tree.ls("users/rows") == ["1", "3", "7", "9"]
    found = base.query("SELECT id, name, age, boss FROM users ORDER BY id")
    assert found == [
        (1, "Ada Łovelace", 37, None),
        (3, 'Bob/B "x", é', 5, None),
        (7, "Eve", None, None),
        (9, "Joe", None, 7),
    ]
    assert base.query("SELECT photo FROM users WHERE id = 3") == [(b"\xff" * 1000,)]


async def test_removing(base: Base) -> None:
    async with driving(f"{base.word},rw") as tree:
        await tree.rm_r("users/rows/2")
        await tree.rm("users/rows/1/photo")
        assert await tree.ls("users/rows/1") == ["age", "id", "name"]
        await trio.sleep(0.7)
        assert base.query("SELECT id, name, photo FROM users") == [(1, "Ada", None)]
        await tree.rm("users/rows/1/name")  # NOT NULL: it is there again
        await trio.sleep(0.7)
        assert await tree.ls("users/rows/1") == ["age", "id", "name"]
        assert b"null" in (await tree.cat("users/error")).lower()
        await tree.rm("users/rows/1/age")
        await tree.rm_r("pairs")
        await tree.rm_r("bare")
    assert base.query("SELECT id, name, age FROM users") == [(1, "Ada", None)]
    with pytest.raises((sqlite3.Error, psycopg.Error)):
        base.query("SELECT * FROM pairs")


async def test_what_the_database_refuses(base: Base) -> None:
    async with driving(f"{base.word},rw") as tree:
        for path, data, words in (
            ("users/rows/1/age", b"-5", b"users_age_check|age > 0"),
            ("users/rows/2/boss", b"99", b"foreign key"),
            ("users/rows/1/age", b"", b"age: no number"),
            ("users/rows/2.json", b'{"name": null}', b"not.null"),
            ("users/rows/2.json", b"{nonsense", b"not JSON"),
            ("users/rows/2.json", b'{"nothing": 1}', b"no column nothing"),
            ("users/all.jsonl", b'{"id": 5, "name": "x"}\n{"id": 6}\n', b"not.null"),
            ("users/all.csv", b"id,name\r\n5,x,3\r\n", b"3 fields for 2 columns"),
            ("users/rows/1/name", b"\xff", b"no text in utf"),
        ):
            with refused(errno.EINVAL, errno.EILSEQ):
                await tree.put(path, data)
            said = (await tree.cat("users/error")).lower()
            assert any(word.lower().replace(b".", b" ") in said.replace(b"-", b" ") for word in words.split(b"|")), said
        with refused(errno.EEXIST):
            await tree.mkdir("users/rows/1")
        with refused(errno.EINVAL, errno.ENOENT, errno.EEXIST):
            await tree.mv("users/rows/1", "users/rows/2")
        await tree.put("users/rows/1/age", b"40")
        assert "error" not in await tree.ls("users")
    assert base.query("SELECT id, name, age, boss FROM users ORDER BY id") == [
        (1, "Ada", 40, None),
        (2, 'Bob/B "x", é', None, 1),
    ]


async def test_snapshot_of_an_open_file(base: Base) -> None:
    async with driving(f"{base.word},rw") as tree:
        ino = await tree.walk("users/all.csv")
        async with tree.subject.opened(ino, 0) as handle:
            first = bytearray(3)
            assert await tree.fs.read_into(ino, handle, 0, [memoryview(first)]) == 3
            await tree.put("users/rows/1/age", b"99")
            rest = bytearray(4096)
            count = await tree.fs.read_into(ino, handle, 3, [memoryview(rest)])
            assert b"36" in rest[:count]
            assert b"99" not in rest[:count]
        assert b"99" in await tree.cat("users/all.csv")


async def test_queries(base: Base) -> None:
    async with driving(f"{base.word},queries") as tree:
        await tree.put("queries/old.sql", b"SELECT name FROM users WHERE age > 30")
        assert await tree.ls("queries") == ["old", "old.sql"]
        assert await tree.cat("queries/old/result.csv") == b"name\r\nAda\r\n"
        assert await tree.cat("queries/old/result.jsonl") == b'{"name": "Ada"}\n'
        for wrong in (b"DELETE FROM users", b"SELECT 1; DROP TABLE users", b"", b"nonsense", b"ATTACH 'x' AS y"):
            await tree.put("queries/old.sql", wrong)
            with refused(errno.EINVAL, errno.EPERM, errno.EROFS):
                await tree.cat("queries/old/result.csv")
            assert await tree.cat("queries/old/error")
        await tree.rm("queries/old.sql")
        assert await tree.ls("queries") == []
    async with driving(f"{base.word},rw") as tree:
        with refused(errno.EPERM):
            await tree.put("queries/x.sql", b"SELECT 1")
    assert len(base.query("SELECT * FROM users")) == 2


@pytest.mark.logs_warnings
async def test_a_query_that_does_not_end(tmp_path: Path) -> None:
    word = sqlite_base(tmp_path / "base.sqlite").word
    endless = b"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    async with driving(f"{word},queries", timeout="0.3") as tree:
        await tree.put("queries/x.sql", endless)
        with refused(errno.EIO, errno.ETIMEDOUT):
            await tree.cat("queries/x/result.csv")


@pytest.mark.parametrize("way", ["to", "from", "within"])
def test_copies_between_databases(way: str, tmp_path: Path, postgres: str) -> None:
    """`cp -r a/users b/users`, whichever databases they are."""
    filled = sqlite_base(tmp_path / "a.sqlite") if way != "from" else postgres_base(postgres)
    if way == "to":
        empty = postgres_base(postgres, "SELECT 1")
    else:
        empty = sqlite_base(tmp_path / "b.sqlite", "CREATE TABLE other (x)")
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    with mounted(filled.word, one), mounted(f"{empty.word},rw", two):
        for table in ("users", "pairs", "bare"):
            done = subprocess.run(["cp", "-r", one / table, two / table], capture_output=True, text=True, check=False)
            assert (done.returncode, done.stderr) == (0, "")
            assert not (two / table / "error").exists()
        assert (two / "users/rows/2/boss@/name").read_text() == "Ada"
        for table in ("users/rows", "users/all.jsonl", "pairs/rows", "pairs/all.csv", "bare/all.csv"):
            subprocess.run(["diff", "-r", one / table, two / table], check=True)
    for table in ("users ORDER BY id", "pairs ORDER BY b", "bare ORDER BY x"):
        assert sorted(map(repr, empty.query(f"SELECT * FROM {table}"))) == sorted(
            map(repr, filled.query(f"SELECT * FROM {table}"))
        )


async def test_a_million_rows_are_not_held(tmp_path: Path, long: bool) -> None:
    count = 1_000_000 if long else 20_000
    base = sqlite_base(tmp_path / "base.sqlite", "CREATE TABLE many (id integer PRIMARY KEY, x text)")
    with closing(sqlite3.connect(tmp_path / "base.sqlite")) as database, database:
        database.executemany("INSERT INTO many VALUES (?, 'x')", ((number,) for number in range(count)))
    async with driving(base.word) as tree:
        ino = await tree.walk("many/rows")
        handle = await tree.subject.opendir(ino)
        offset = seen = 0
        while True:
            offset, part = await tree.subject.batch(ino, handle, offset, 500)
            if not part:
                break
            seen += len(part)
        listing = tree.fs._listings[handle][1]  # type: ignore[attr-defined]
        assert len(listing._read) < 5000
        assert seen == count + 2
        await tree.subject.closedir(ino, handle)


async def test_values_of_sqlite_keep_their_types(tmp_path: Path) -> None:
    script = "CREATE TABLE t (k, v, PRIMARY KEY (k));"
    script += "INSERT INTO t VALUES (5, 1), ('5', '1'), (x'35', x'31'), (5.5, 1.5)"
    base = sqlite_base(tmp_path / "base.sqlite", script)
    async with driving(f"{base.word},rw") as tree:
        assert sorted(await tree.ls("t/rows")) == ["%f5.5", "%i5", "%x35", "5"]
        for name in await tree.ls("t/rows"):
            await tree.put(f"t/rows/{name}/v", b"7")
    assert base.query("SELECT k, v, typeof(v) FROM t ORDER BY typeof(k)") == [
        (b"5", b"7", "blob"),
        (5, 7, "integer"),
        (5.5, 7.0, "real"),
        ("5", "7", "text"),
    ]


def test_what_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database, but a text that is longer than the header of one would be" * 20)

    def message(word: str) -> str:
        with pytest.raises((UmlError, UsageError)) as caught:
            trio.run(sources.parse(word).open)
        return str(caught.value)

    assert "file is not a database" in message(f"sql:{tmp_path}/text")
    assert "no such file" in message(f"sql:{tmp_path}/none")
    assert "no database that is known" in message("sql:mysql://x/y")
    assert "a server that answers" in message(f"sql:postgresql://me@/x?host={tmp_path}")
