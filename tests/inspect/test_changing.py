"""mkdir, rm, mv, ln, chmod, chown and edit, in trees of this host and in an image."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from hostfs import HostFilesystem
from runtime.cli import invoke
from runtime.inspect.modes import applied, check
from tests import needs
from tests.inspect.trees import make
from umlfs.errors import UsageError


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return make(tmp_path / "tree", {"etc/conf": "a = 1\n", "etc/link": "-> conf", "home/me/x": "x", "empty/": ""})


def ok(*words: str) -> None:
    assert invoke(words) == 0


def error(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    status = invoke(words)
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    return status, err.strip()


def test_directories_and_names(tree: Path) -> None:
    ok("mkdir", "-p", "tree:/a/b/c", "tree:/etc")
    ok("mkdir", "-m", "1777", "tree:/a/open")
    assert stat.S_IMODE((tree / "a/open").stat().st_mode) == 0o1777
    ok("mv", "tree:/etc/conf", "/a/b")
    assert (tree / "a/b/conf").read_text() == "a = 1\n"
    ok("mv", "tree:/a/b", "tree:/moved")
    ok("ln", "-sf", "../moved/conf", "tree:/etc/link")
    assert os.readlink(tree / "etc/link") == "../moved/conf"
    ok("ln", "tree:/moved/conf", "tree:/hard")
    assert (tree / "hard").stat().st_nlink == 2
    ok("rm", "-r", "tree:/moved", "tree:/hard")
    ok("rm", "-f", "tree:/hard")
    assert sorted(path.name for path in tree.iterdir()) == ["a", "empty", "etc", "home"]


def test_a_tree_is_not_left_by_removing(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/file").touch()
    (tree / "home/out").symlink_to(tmp_path / "outside")
    ok("rm", "-r", "tree:/home")
    assert (tmp_path / "outside/file").exists()


def test_modes_and_owners(tree: Path) -> None:
    ok("chmod", "-R", "u=rwX,go-rwx", "tree:/home")
    assert stat.S_IMODE((tree / "home/me").stat().st_mode) == 0o700
    assert stat.S_IMODE((tree / "home/me/x").stat().st_mode) == 0o600
    ok("chmod", "-x", "tree:/empty")
    uid, gid = os.getuid(), os.getgid()
    (tree / "home/me/x").chmod(0o4755)
    ok("chown", "-R", f"{uid}:{gid}", "tree:/home")
    assert stat.S_IMODE((tree / "home/me/x").stat().st_mode) == 0o755


def test_words_of_chmod() -> None:
    for text, before, after in (
        ("644", 0o777, 0o644),
        ("u+x", 0o644, 0o744),
        ("a=r", 0o4777, 0o444),
        ("g+s,+t", 0o755, 0o3755),
        ("go=", 0o777, 0o700),
        ("+X", 0o644, 0o644),
        ("u-w+x", 0o644, 0o544),
    ):
        assert applied(check(text), before, directory=False) == after, text
    for text in ("888", "u", "z+x", "", "u+q", "77777"):
        with pytest.raises(UsageError):
            check(text)


def test_mistakes(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert error(capsys, "mkdir", "tree:/etc") == (1, "uml: tree/etc: File exists")
    assert error(capsys, "mkdir", "tree:/no/where")[0] == 1
    assert error(capsys, "rm", "tree:/etc") == (1, "uml: tree/etc: Is a directory")
    assert error(capsys, "rm", "tree:/none") == (1, "uml: tree/none: No such file or directory")
    assert error(capsys, "rm", "-r", "tree:/")[0] == 1
    assert error(capsys, "rm", "tree:/etc/conf", "machine")[0] == 2
    assert error(capsys, "rm", "./file")[0] == 2
    assert error(capsys, "rm")[0] == 2
    assert error(capsys, "mv", "tree:/etc", "tree:/etc/below")[0] == 1
    assert error(capsys, "ln", "tree:/etc/conf", "tree:/etc/link") == (1, "uml: tree/etc/link: File exists")
    assert error(capsys, "chmod", "9", "tree:/etc")[0] == 2
    assert error(capsys, "chown", "root", "tree:/etc")[0] == 2
    assert error(capsys, "edit", "--editor", "false", "tree:/etc/conf")[1].endswith("nothing was changed")
    assert error(capsys, "edit", "--editor", "no-such-editor", "tree:/etc/conf")[0] == 1
    assert (tree / "etc/conf").read_text() == "a = 1\n"


def test_edit(tree: Path) -> None:
    (tree / "etc/conf").chmod(0o640)
    ok("edit", "--editor", "sed -i s/1/22/", "tree:/etc/link")
    assert (tree / "etc/conf").read_text() == "a = 22\n"
    assert (tree / "etc/link").is_symlink()
    assert stat.S_IMODE((tree / "etc/conf").stat().st_mode) == 0o640
    assert sorted(os.listdir(tree / "etc")) == ["conf", "link"]


def test_an_edited_file_stays_the_same_one(tree: Path) -> None:
    """It keeps its names, owner, mode and attributes, and what has a name like ours keeps that."""
    conf = tree / "etc/conf"
    os.link(conf, tree / "home/conf")
    os.chown(conf, *((12, 34) if os.getuid() == 0 else (-1, -1)))
    conf.chmod(0o4750)
    os.setxattr(conf, "user.note", b"mine")
    owner = conf.stat().st_uid, conf.stat().st_gid
    (tree / "etc/conf.uml-edit").write_text("another's")
    for count in (2, 1):
        ok("edit", "--editor", "sed -i s/1/11/", "tree:/etc/conf")
        found = conf.stat()
        assert (found.st_nlink, stat.S_IMODE(found.st_mode), (found.st_uid, found.st_gid)) == (count, 0o4750, owner)
        assert os.getxattr(conf, "user.note") == b"mine"
        if count == 2:
            assert (tree / "home/conf").read_text() == "a = 11\n"
            (tree / "home/conf").unlink()
    assert conf.read_text() == "a = 111\n"
    assert (tree / "etc/conf.uml-edit").read_text() == "another's"
    assert sorted(os.listdir(tree / "etc")) == ["conf", "conf.uml-edit", "link"]


def test_what_was_written_is_not_lost(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where another changed the file meanwhile, both texts are kept."""
    editor = tmp_path / "editor"
    editor.write_text(f'#!/bin/sh\necho mine >"$1"\necho "another\'s" >{tree}/etc/conf\n')
    editor.chmod(0o755)
    status, line = error(capsys, "edit", "--editor", str(editor), "tree:/etc/conf")
    what, _, draft = line.partition("; what you wrote is in ")
    assert (status, what) == (1, "uml: tree:/etc/conf: changed by another meanwhile")
    assert Path(draft).read_text() == "mine\n"
    assert (tree / "etc/conf").read_text() == "another's\n"
    shutil.rmtree(Path(draft).parent)


def test_a_link_takes_a_place_at_once(
    tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """There is never a moment without the name, and if it fails the old one stays."""

    async def unlink(*_: object) -> None:
        raise AssertionError("the name was gone")

    monkeypatch.setattr(HostFilesystem, "unlink", unlink)
    ok("ln", "-sf", "elsewhere", "tree:/etc/link")
    ok("ln", "-f", "tree:/home/me/x", "tree:/etc/conf")
    assert (os.readlink(tree / "etc/link"), (tree / "etc/conf").read_text()) == ("elsewhere", "x")
    monkeypatch.undo()
    os.chdir(tree.parent)
    ok("ln", "-f", "tree:/home/me/x", "tree:/etc/conf")  # they are one file: rename does nothing
    assert error(capsys, "ln", "-sf", "to", "tree:/home")[0] == 1
    assert error(capsys, "ln", "-f", "tree:/none", "tree:/etc/conf")[0] == 1
    assert sorted(os.listdir(tree / "etc")) == ["conf", "link"]
    assert sorted(os.listdir(tree)) == ["empty", "etc", "home"]


@pytest.mark.guest
def test_in_an_image(tree: Path, tmp_path: Path) -> None:
    image = str(tmp_path / "it.img")
    make_image = [needs.program("mke2fs"), "-qF", "-t", "ext4", "-d", "tree", image, "8M"]
    subprocess.run(make_image, check=True, capture_output=True)
    ok("mkdir", "-p", f"{image}:/srv/www")
    ok("mv", f"{image}:/etc/conf", "/srv/www/")
    ok("chown", "33:33", f"{image}:/srv/www/conf")
    ok("edit", "--editor", "sed -i s/1/22/", f"{image}:/srv/www/conf")
    ok("rm", "-r", f"{image}:/home")
    said = subprocess.run(
        [needs.program("debugfs"), "-R", "stat /srv/www/conf", image], capture_output=True, text=True, check=True
    ).stdout
    assert "User:    33   Group:    33" in said
    assert "Size: 7" in said
    subprocess.run([needs.program("e2fsck"), "-fn", image], check=True, capture_output=True)
