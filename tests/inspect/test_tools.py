"""The tools on directories of this host: what they show and compare is the same for every source."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from hostfs import HostFilesystem
from runtime.cli import invoke
from runtime.inspect.paths import resolve
from runtime.inspect.system import distribution
from runtime.inspect.walk import walk
from tests.inspect.trees import make

FILES = {
    "etc/conf": "a = 1\n",
    "etc/.hidden": "",
    "etc/link": "-> conf",
    "etc/away": "-> /home/me",
    "home/me/x.txt": "x" * 3000,
    "empty/": "",
}


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return make(tmp_path / "tree", FILES)


def output(capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> str:
    assert invoke(words) == status
    out, err = capsys.readouterr()
    assert err == ""
    return out


def error(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    status = invoke(words)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return status, err.strip()


def test_ls(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert output(capsys, "ls", "tree") == "empty\netc\nhome\n"
    assert output(capsys, "ls", "-a", "tree:/etc") == ".hidden\naway\nconf\nlink\n"
    assert output(capsys, "ls", "tree:/etc/away/") == "x.txt\n"
    assert output(capsys, "ls", "-R", "tree:/home") == "/home:\nme\n\n/home/me:\nx.txt\n"
    lines = output(capsys, "ls", "-l", "tree:/etc").splitlines()
    assert lines[1].startswith(f"-rw-r--r-- 1 {os.getuid()} {os.getgid()} ")
    assert lines[2].endswith("link -> conf")
    records = json.loads(output(capsys, "ls", "--json", "tree:/etc"))
    assert [(each["path"], each["type"], each.get("target")) for each in records] == [
        ("/etc/away", "link", "/home/me"),
        ("/etc/conf", "file", None),
        ("/etc/link", "link", "conf"),
    ]


def test_names_cannot_drive_a_terminal(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tree / "empty" / "a\x1b[31m\n").touch()
    assert output(capsys, "find", "tree:/empty", "--type", "f") == "/empty/a\\x1b[31m\\n\n"


def test_cat(tree: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert invoke(["cat", "tree:/etc/link", "tree:/home/me/x.txt"]) == 0
    assert capfd.readouterr().out == "a = 1\n" + "x" * 3000


def test_stat_find_and_tree(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (record,) = json.loads(output(capsys, "stat", "--json", "tree:/etc/link"))
    assert (record["type"], record["target"], record["mode"]) == ("link", "conf", "0777")
    assert output(capsys, "find", "tree", "*.txt") == "/home/me/x.txt\n"
    assert output(capsys, "find", "tree", "/etc/*", "--type", "l") == "/etc/away\n/etc/link\n"
    drawing = output(capsys, "tree", "tree").splitlines()
    assert drawing[:4] == ["/", "├── empty", "├── etc", "│   ├── .hidden"]
    assert drawing[-4:] == ["└── home", "    └── me", "        └── x.txt", "4 directories, 5 files"]
    assert "tree" in output(capsys, "df", "tree")


def test_errors_name_the_place(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert error(capsys, "cat", "tree:/etc/none") == (1, "uml: tree/etc/none: No such file or directory")
    assert error(capsys, "cat", "tree:/etc") == (1, "uml: tree/etc: Is a directory")
    assert error(capsys, "ls", "tree:/etc/conf/x") == (1, "uml: tree/etc/conf: Not a directory")
    assert error(capsys, "ls", "none")[0] == 2
    assert error(capsys, "find", "tree", "--type", "x")[0] == 2
    assert error(capsys, "cp", "tree", "copy") == (2, "uml: tree: a directory; copy it with --recursive")
    assert error(capsys, "cp", "--owner", "me", "tree", "copy")[0] == 2
    assert error(capsys, "image", "info", "tree") == (
        1,
        "uml: tree: a tree, not an image; 'uml ls' lists what is in it",
    )


def test_links_that_lead_nowhere_or_in_circles(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tree / "circle").symlink_to("circle")
    (tree / "up").symlink_to("../../../../etc/conf")
    assert error(capsys, "cat", "tree:/circle") == (1, "uml: tree/circle: Too many levels of symbolic links")
    assert json.loads(output(capsys, "stat", "--json", "tree:/up"))[0]["target"] == "../../../../etc/conf"
    # The root's own `..`: nothing outside is ever shown.
    assert invoke(["cat", "tree:/up"]) == 0


def test_diff(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["cp", "-r", "tree", "copy"]) == 0
    assert output(capsys, "diff", "tree", "copy") == ""
    copy = tmp_path / "copy"
    (copy / "etc/conf").write_text("a = 2\n")
    (copy / "etc/.hidden").chmod(0o600)
    (copy / "etc/link").unlink()
    (copy / "etc/link").symlink_to("elsewhere")
    (copy / "home/me/x.txt").unlink()
    (copy / "home/me/x.txt").mkdir()
    (copy / "new/deep").mkdir(parents=True)
    (copy / "empty").rmdir()
    assert output(capsys, "diff", "tree", "copy", status=1).splitlines() == [
        "- /empty/",
        "! /etc/.hidden  (mode 0644 -> 0600)",
        "! /etc/conf  (contents)",
        "! /etc/link  (target)",
        "! /home/me/x.txt/  (type file -> directory)",
        "+ /new/",
        "+ /new/deep/",
    ]
    records = json.loads(output(capsys, "diff", "--json", "tree:/etc", "copy:/etc", status=1))
    assert [each["what"] for each in records] == [["mode"], ["contents"], ["target"]]
    assert error(capsys, "diff", "tree", "tree:/none")[0] == 2


def test_cp_does_not_replace_its_own(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two places copied to one name: the first stays, the second is told. What was there before is replaced, also by
    links."""
    (tmp_path / "conf").write_text("another")
    os.link(tree / "home/me/x.txt", tree / "home/me/y.txt")
    (tmp_path / "to").mkdir()
    for _ in range(2):
        assert invoke(["cp", "--force", "-r", "tree/etc/conf", "conf", "tree/home", "to"]) == 1
        assert capsys.readouterr().err == "uml: conf: another that was copied has this name there: left out\n"
        assert (tmp_path / "to/conf").read_text() == FILES["etc/conf"]
        assert (tmp_path / "to/home/me/x.txt").samefile(tmp_path / "to/home/me/y.txt")


def test_cp(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tree / "etc/conf").chmod(0o640)
    os.utime(tree / "etc/conf", ns=(1, 1_234_567_890_123_456_789))
    os.link(tree / "etc/conf", tree / "etc/conf2")
    with (tree / "holes").open("wb") as file:
        file.seek(1 << 20)
        file.write(b"end")
        file.truncate(4 << 20)
    assert output(capsys, "cp", "-r", "tree:/etc", "tree/holes", str(tmp_path), status=0) == ""
    copied = tmp_path / "etc/conf"
    assert stat.S_IMODE(copied.stat().st_mode) == 0o640
    assert copied.stat().st_mtime_ns == 1_234_567_890_123_456_789
    assert copied.samefile(tmp_path / "etc/conf2")
    assert os.readlink(tmp_path / "etc/link") == "conf"
    assert (tmp_path / "holes").stat().st_size == 4 << 20
    assert (tmp_path / "holes").stat().st_blocks * 512 < 1 << 20
    assert (tmp_path / "holes").read_bytes() == (tree / "holes").read_bytes()
    assert error(capsys, "cp", "tree/holes", ".") == (1, "uml: holes: is there already; --force replaces files")
    assert output(capsys, "cp", "-f", "tree/etc/conf", "holes") == ""
    assert (tmp_path / "holes").read_text() == "a = 1\n"
    assert error(capsys, "cp", "tree/etc/conf", "tree/holes", "holes")[0] == 2
    assert error(capsys, "cp", "-r", "tree:/", str(tmp_path))[0] == 2


def test_a_failed_copy_leaves_nothing(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "n" * 200
    deep = tree / "home" / name
    deep.mkdir()
    (deep / "unreadable").write_text("x")
    (tree / "target").mkdir()
    (tree / "target" / "home").write_text("in the way")
    assert error(capsys, "cp", "-rf", "tree:/home", "tree:/target") != (0, "")
    assert (tree / "target/home").read_text() == "in the way"


async def test_a_walk_gives_everything_back(tree: Path) -> None:
    filesystem = HostFilesystem(tree, read_only=True)
    top = await resolve(filesystem, b"/")
    seen = [each.node.path async for each in walk(filesystem, top)]
    assert seen == [b"/", b"/empty", b"/etc", b"/home", b"/home/me"]
    assert set(filesystem.resolver.table.nodes) == {1}
    await filesystem.close()


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('PRETTY_NAME="Debian GNU/Linux 12"\nID=debian\n', "Debian GNU/Linux 12"),
        ("NAME=Arch\n", "Arch"),
        ("# PRETTY_NAME=no\nID='void'\n", "void"),
        ('PRETTY_NAME="unfinished\n', '"unfinished'),
        ("\0\xff", None),
    ],
)
def test_distributions(text: str, name: str | None) -> None:
    assert distribution(text) == name
