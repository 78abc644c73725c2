"""The commands on trees whose files do not tell their size."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

UML = (sys.executable, "-c", "from runtime.cli import main; main()")


def uml(directory: Path, *words: str) -> tuple[int, str]:
    done = subprocess.run([*UML, *words], cwd=directory, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def database(path: Path, name: str = "Ada") -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE t (id integer PRIMARY KEY, name text)")
        connection.execute("INSERT INTO t VALUES (1, ?)", (name,))


def test_commands(tmp_path: Path) -> None:
    """A database is one without a word; whole files are copied whole, and compared."""
    for path, name in (("one", "Ada"), ("two", "Ada"), ("three", "Eve")):
        database(tmp_path / path, name)
    assert uml(tmp_path, "ls", "sql:one:/t") == (0, "all.csv\nall.jsonl\nrows\nschema.sql\n")
    assert uml(tmp_path, "cat", "one:/t/all.csv") == (0, "id,name\n1,Ada\n")
    assert "/t/rows/1/name" in uml(tmp_path, "find", "sql:one")[1]
    assert uml(tmp_path, "cp", "-r", "sql:one:/t", "copy")[0] == 0
    assert (tmp_path / "copy/all.jsonl").read_text() == '{"id": 1, "name": "Ada"}\n'
    assert (tmp_path / "copy/rows/1/name").read_text() == "Ada"
    assert uml(tmp_path, "diff", "sql:one", "sql:two")[0] == 0
    status, said = uml(tmp_path, "diff", "sql:one", "sql:three")
    assert status == 1
    assert "all.csv" in said
    (tmp_path / "name").write_text("Joe")
    status, said = uml(tmp_path, "cp", "--force", "name", "sql:two:/t/rows/1/name")
    assert status == 1
    assert "can only be read" in said
    assert uml(tmp_path, "cp", "--force", "name", "sql:two,rw:/t/rows/1/name")[0] == 0
    assert "Joe" in uml(tmp_path, "cat", "sql:two:/t/rows/1.json")[1]
