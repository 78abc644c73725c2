"""`uml humfs`, from the command line."""

from __future__ import annotations

import json
import sqlite3
import tarfile
from pathlib import Path

import pytest

from runtime import cli

Run = pytest.CaptureFixture[str]


def uml(*words: object) -> int:
    return cli.invoke(["humfs", *map(str, words)])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    assert uml("create", tmp_path / "fs", "--size", "1G", "--owner", "5:6") == 0
    (tmp_path / "fs/data/etc").mkdir()
    (tmp_path / "fs/data/etc/passwd").write_text("root:x:0:0::/:\nwww:x:33:34::/:\n")
    (tmp_path / "fs/data/etc/group").write_text("www:x:35:\n")
    return tmp_path / "fs"


def test_the_walk_through(root: Path, tmp_path: Path, capsys: Run) -> None:
    (tmp_path / "hello").write_text("hello")
    with tarfile.open(tmp_path / "in.tar", "w") as tar:
        member = tar.gettarinfo(str(tmp_path / "hello"), "srv/hello")
        member.uid = member.gid = 1234
        with open(tmp_path / "hello", "rb") as file:
            tar.addfile(member, file)
    assert uml("import", root, tmp_path / "in.tar") == 0
    assert uml("chown", root / "data/srv/hello", "www:www") == 0
    capsys.readouterr()
    assert uml("stat", root / "data/srv/hello", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["uid"], facts["gid"], facts["size"]) == (33, 35, 5)
    assert uml("stat", root / "data/etc") == 0
    assert "5:6" in capsys.readouterr().out
    assert uml("export", root, tmp_path / "out.tar") == 0
    with tarfile.open(tmp_path / "out.tar") as tar:
        found = tar.getmember("./srv/hello")
        assert (found.uid, found.gid) == (33, 35)
    assert uml("check", root) == 0
    assert capsys.readouterr().out == ""


def test_info(root: Path, capsys: Run) -> None:
    assert uml("check", "--repair", root) == 0
    capsys.readouterr()
    assert uml("info", root) == 0
    shown = capsys.readouterr().out
    assert "sqlite, version 2" in shown
    assert "state     clean" in shown
    assert "/etc/passwd: found under data/ without metadata" in shown
    assert uml("info", "--json", root) == 0
    assert json.loads(capsys.readouterr().out)["default_gid"] == 6


def test_check_says_what_it_found(root: Path, capsys: Run) -> None:
    uml("check", "--repair", root)
    with sqlite3.connect(root / "metadata.sqlite") as rows:
        rows.execute("UPDATE inode SET nlink = 9 WHERE ino = 1")
    rows.close()
    capsys.readouterr()
    assert uml("check", root) == 1
    assert "wrong number of links" in capsys.readouterr().out
    assert uml("check", "--json", root) == 1
    assert json.loads(capsys.readouterr().out)["findings"][0]["kind"] == "links"
    assert uml("check", "--repair", root) == 0
    capsys.readouterr()
    assert uml("check", root) == 0
    assert capsys.readouterr().out == ""


def test_settings(root: Path, capsys: Run) -> None:
    assert uml("set", root, "--size", "2G", "--owner", "www", "--acl") == 0
    capsys.readouterr()
    assert uml("info", "--json", root) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["total"], facts["default_uid"], facts["default_gid"]) == (2 << 30, 33, 6)
    assert facts["posix_acl"]
    assert uml("check", root) == 0


def test_convert(root: Path, capsys: Run) -> None:
    assert uml("convert", root, "--to", "shadow_fs") == 0
    assert (root / "file_metadata/etc/passwd").read_text() == "420 5 6\n"
    assert uml("info", root) == 0
    assert "shadow_fs, version 2" in capsys.readouterr().out
    assert uml("convert", root, "--to", "sqlite") == 0
    assert uml("check", root) == 0


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["create", "{root}", "--size", "1G"], 1, "not empty"),
        (["create", "{root}/new", "--size", "1Q"], 2, "Bad filesystem size"),
        (["create", "{root}/new", "--size", "1G", "--owner", "nobody-knows"], 2, "is no number"),
        (["import", "{root}", "{root}/missing.tar"], 1, "No such file"),
        (["import", "{root}", "{root}/data"], 2, "no OCI image layout"),
        (["import", "{root}/nothing", "x.tar"], 1, "no superblock"),
        (["check", "{root}/nothing"], 1, "no superblock"),
        (["info", "{root}/nothing"], 1, "no superblock"),
        (["stat", "/etc/passwd"], 2, "not in a humfs directory"),
        (["stat", "{root}/data/missing"], 1, "no such file"),
        (["chown", "{root}/data/etc", ":"], 2, "names no owner"),
        (["chown", "{root}/data/etc", "nobody-knows"], 2, "not in the guest's /etc/passwd"),
        (["convert", "{root}", "--to", "sqlite"], 1, "already"),
        (["set", "{root}", "--size", "1"], 1, "bytes are used"),
        (["set", "{root}"], 2, "nothing to change"),
    ],
)
def test_failures_are_one_line(root: Path, words: list[str], status: int, says: str, capsys: Run) -> None:
    assert uml(*(word.format(root=root) for word in words)) == status
    error = capsys.readouterr().err
    assert error.startswith("uml: ")
    assert error.count("\n") == 1
    assert says in error


def test_query(root: Path, capsys: Run) -> None:
    assert uml("check", "--repair", root) == 0
    capsys.readouterr()
    assert uml("query", root) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].split() == ["TABLE", "ROWS", "COLUMNS"]
    assert {line.split()[0] for line in shown[1:]} == {"inode", "dentry", "xattr", "meta", "repair"}
    assert uml("query", "--json", root, "dentry") == 0
    names = [row["name"] for row in json.loads(capsys.readouterr().out)]
    assert sorted(names) == ["etc", "group", "passwd"]
    assert uml("query", root, "SELECT uid, count(*) AS files FROM inode GROUP BY uid") == 0
    assert capsys.readouterr().out.split() == ["UID", "FILES", "5", "4"]
    assert uml("query", root, "SELECT * FROM inode WHERE ino = 0") == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "question",
    [
        "nothing",
        "SELECT",
        "DELETE FROM inode",
        "ATTACH '/etc/passwd' AS x",
        "PRAGMA journal_mode = OFF",
        "SELECT 1; SELECT 2",
    ],
)
def test_questions_that_are_none(root: Path, question: str, capsys: Run) -> None:
    before = (root / "metadata.sqlite").read_bytes()
    assert uml("query", root, question) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert (root / "metadata.sqlite").read_bytes() == before


def test_questions_to_what_has_no_answers(root: Path, capsys: Run) -> None:
    assert uml("query", root / "data") == 1
    assert uml("convert", root, "--to", "shadow_fs") == 0
    assert uml("query", root) == 1
    assert "in files, not in SQLite" in capsys.readouterr().err
