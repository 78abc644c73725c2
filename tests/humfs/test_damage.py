"""A database that is damaged in itself: said in one line by everything, and made anew by `check --repair`."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from humfs.check import check
from humfs.findings import Kind
from tests.humfs.test_host import contents, populate

DAMAGE = {
    "no number 'clean'": "DELETE FROM meta WHERE key = 'clean'",
    "a number that is text": "UPDATE meta SET value = 'yes' WHERE key = 'next_ino'",
    "no inodes": "DROP TABLE inode",
    "no names": "DROP TABLE dentry",
    "no attributes": "DROP TABLE xattr",
    "no numbers": "DROP TABLE meta",
    "no index": "DROP INDEX dentry_in_order",
    "text in mode": "UPDATE inode SET mode = 'rwxr-xr-x' WHERE ino = 4",
    "no type in mode": "UPDATE inode SET mode = 493 WHERE ino = 4",
    "a real uid": "UPDATE inode SET uid = 1.5 WHERE ino = 4",
    "not UTF-8": "UPDATE inode SET mode = CAST(X'ff' AS TEXT)",
    "a key not UTF-8": "UPDATE meta SET key = CAST(X'ff' AS TEXT) WHERE key = 'clean'",
    "a name of text": "UPDATE dentry SET name = CAST(name AS TEXT) WHERE name = X'66696C6531'",
    "a name with a slash": "UPDATE dentry SET name = X'612F62' WHERE name = X'66696C6531'",
}
KEEP_ALL = {"no index", "no numbers", "no number 'clean'", "a number that is text", "a key not UTF-8", "no names"}
COMMANDS = ("info", "check", "export @ {}", "stat @/data/etc", "query @ inode", "convert @ --to shadow_fs")

SCRIPT = """
import sys
from runtime.cli import main

for words in sys.argv[1].split(";"):
    sys.argv = ["uml", "humfs", *words.split()]
    try:
        main()
    except SystemExit:
        pass
"""


def break_database(root: Path, statement: str) -> None:
    with closing(sqlite3.connect(root / "metadata.sqlite")) as rows:
        rows.execute(statement)
        rows.commit()


@pytest.mark.parametrize("kind", DAMAGE)
async def test_it_is_made_anew(root: Path, kind: str) -> None:
    await populate(root)
    before = await contents(root)
    break_database(root, DAMAGE[kind])
    found = check(root)
    assert {finding.kind for finding in found} == {Kind.DATABASE}
    assert check(root) == found  # looking changes nothing
    repaired = check(root, repair=True)
    assert repaired[: len(found)] == found
    assert Kind.REBUILT in {finding.kind for finding in repaired}
    assert check(root) == []
    assert (root / "metadata.sqlite.damaged").is_file()
    after = await contents(root)
    assert after.keys() == before.keys()
    if kind in KEEP_ALL:
        assert after == before


async def test_half_a_file(root: Path) -> None:
    """What was cut off is lost; every file is there, and what stands at the beginning is kept if it can be read."""
    await populate(root)
    before = await contents(root)
    path = root / "metadata.sqlite"
    for size in (path.stat().st_size // 2, 100, 5):
        os.truncate(path, size)
        check(root, repair=True)
        assert check(root) == []
        assert (await contents(root)).keys() == before.keys()


@pytest.mark.parametrize("kind", DAMAGE)
async def test_every_command_says_so(root: Path, tmp_path: Path, kind: str) -> None:
    """One process for all commands: each ends with a result or with one line, and never with an internal error."""
    await populate(root)
    break_database(root, DAMAGE[kind])
    words = ";".join(c.replace("@", str(root)) if "@" in c else f"{c} {root}" for c in COMMANDS)
    command = [sys.executable, "-c", SCRIPT, words.format(tmp_path / "new.tar")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert "internal error" not in done.stderr, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
