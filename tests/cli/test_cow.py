"""`uml cow` and the historical programs, as a person types them."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import click
import pytest
import trio

from runtime.cli import invoke
from runtime.cli.cow import command
from runtime.cli.historical import mkcow, moo
from tests import needs
from tests.cow.files import change, pair
from umlfs.cow.info import present

Lines = pytest.CaptureFixture[str]


@pytest.fixture
def cow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A COW file named `cow` over `backing`, in the working directory."""
    monkeypatch.chdir(tmp_path)
    return pair(tmp_path, 65536)[0]


def run(*words: str) -> int:
    return invoke(["cow", *words])


@pytest.mark.parametrize("name", command.commands)
def test_every_command_has_an_example(name: str) -> None:
    page = command.commands[name].help or ""
    assert f"  uml cow {name} " in page
    for parameter in command.commands[name].params:
        assert not isinstance(parameter, click.Option) or parameter.help


def test_create(cow: Path, capsys: Lines) -> None:
    assert run("create", "new", "backing") == 0
    assert run("create", "new", "backing") == 1
    assert capsys.readouterr().err == "uml: new: exists; name another, or --force to lose all changes in it\n"
    assert run("create", "--force", "new", "backing") == 0
    assert run("create", "other", "missing") == 1
    assert capsys.readouterr().err == "uml: missing: No such file or directory\n"
    assert not Path("other").exists()


async def test_merge(cow: Path, capsys: Lines) -> None:
    content = await change(cow)
    Path("new").write_bytes(b"old")
    assert run("merge", "cow", "new") == 1
    assert capsys.readouterr().err == "uml: new: exists; name another, or --force to replace it\n"
    assert Path("new").read_bytes() == b"old"
    assert run("merge", "--force", "cow", "new") == 0
    assert run("merge", "cow") == run("merge", "-d", "cow", "new") == 2
    assert "give either NEW or --in-place" in capsys.readouterr().err
    assert run("merge", "--in-place", "--backing", "backing", "cow") == 0
    assert Path("new").read_bytes() == Path("backing").read_bytes() == content
    assert capsys.readouterr() == ("", "")


async def test_info_and_map(cow: Path, capsys: Lines) -> None:
    await change(cow)
    assert run("info", "--json", "cow") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["valid"], found["size"], found["in_use_by"]) == (True, 65536, None)
    assert run("map", "--json", "cow") == 0
    ranges = json.loads(capsys.readouterr().out)
    assert sum(each["length"] for each in ranges) == found["sectors_changed"] * 512
    assert run("map", "cow") == 0
    assert len(capsys.readouterr().out.splitlines()) == len(ranges) == len(present("cow"))
    os.utime("backing", (5, 5))
    assert run("info", "cow") == 0
    shown = capsys.readouterr().out
    assert "but the backing file has 5" in shown
    assert "touch -d @" in shown
    assert run("info", "backing") == 1
    assert "backing: not a COW file (no COW magic number)" in capsys.readouterr().err


def test_check(cow: Path, capsys: Lines) -> None:
    assert run("check", "cow") == 0
    os.truncate(cow, cow.stat().st_size - 4096)
    assert run("check", "--json", "cow") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ok"]
    assert found["findings"][0]["what"] == "short"
    assert run("check", "--repair", "cow") == 0
    assert capsys.readouterr().out.endswith("without loss (repaired)\n")
    os.utime("backing", (5, 5))
    assert run("check", "cow") == 1


def test_rebase(cow: Path, capsys: Lines) -> None:
    os.rename("backing", "moved")
    assert run("rebase", "cow", "moved") == 0
    os.utime("moved", (5, 5))
    assert run("rebase", "cow", "moved") == 1
    assert "or --force-mtime" in capsys.readouterr().err
    assert run("rebase", "--force-mtime", "cow", "moved") == 0
    assert "is now read from moved" in capsys.readouterr().err


async def test_diff(cow: Path, capsys: Lines) -> None:
    assert await trio.to_thread.run_sync(run, "diff", "cow", "backing") == 0
    assert await trio.to_thread.run_sync(run, "create", "other", "backing") == 0
    await change(cow, count=1)
    assert await trio.to_thread.run_sync(run, "diff", "--json", "cow", "other") == 1
    assert json.loads(capsys.readouterr().out)
    assert await trio.to_thread.run_sync(run, "diff", "cow", "other") == 1


# The historical programs, against the real ones ------------------------------------------------


MKCOW = [
    [],
    ["one"],
    ["-f"],
    ["-f", "one"],
    ["--help"],
    ["new", "backing"],
    ["new", "backing", "more"],
    ["-f", "cow", "backing"],
    ["cow", "backing"],
    ["new", "missing"],
    ["no/new", "backing"],
]

MOO = [
    [],
    ["cow"],
    ["-b"],
    ["-b", "backing"],
    ["-b", "backing", "cow"],
    ["--help"],
    ["-x", "cow", "new"],
    ["cow", "new"],
    ["cow", "new", "more"],
    ["-b", "backing", "cow", "new"],
    ["-b", "missing", "cow", "new"],
    ["-b", "other", "cow", "new"],
    ["-d", "cow"],
    ["-d", "cow", "new"],
    ["-d", "-b", "backing", "cow"],
    ["missing", "new"],
    ["backing", "new"],
    ["cow", "no/new"],
    ["cow", "-b"],
]


@pytest.mark.interop
@pytest.mark.parametrize("arguments", MKCOW, ids=" ".join)
def test_mkcow_says_the_same(cow: Path, arguments: list[str], capfd: Lines) -> None:
    theirs = real("uml_mkcow", arguments)
    Path("new").unlink(missing_ok=True)
    Path("cow").unlink(missing_ok=True)
    pair(cow.parent, 65536)
    capfd.readouterr()
    status = mkcow.run(arguments)
    assert (status, *capfd.readouterr()) == theirs


@pytest.mark.interop
@pytest.mark.parametrize("arguments", MOO, ids=" ".join)
def test_moo_says_the_same(cow: Path, arguments: list[str], capfd: Lines) -> None:
    Path("other").write_bytes(b"other")
    before = Path("backing").stat().st_mtime_ns
    theirs = real("uml_moo", arguments)
    merged = Path("new").read_bytes() if Path("new").exists() else None
    Path("new").unlink(missing_ok=True)
    os.utime("backing", ns=(before, before))
    capfd.readouterr()
    status = moo.run(arguments)
    assert (status, *capfd.readouterr()) == theirs
    assert (Path("new").read_bytes() if Path("new").exists() else None) == merged


def real(name: str, arguments: list[str]) -> tuple[int, str, str]:
    path = needs.path(f"/usr/bin/{name}")
    done = subprocess.run([name, *arguments], executable=path, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def test_their_faults_are_not_ours(cow: Path, tmp_path: Path, capfd: Lines) -> None:
    assert moo.run(["-d"]) == 1, "theirs crashes"
    assert moo.run(["-b", "backing", "-d", "cow"]) == 0, "theirs takes -d for the COW file, against its own usage"
    assert mkcow.run(["new", "missing"]) == 1
    assert not Path("new").exists()
    os.utime("backing", (5, 5))
    capfd.readouterr()
    assert moo.run(["cow", "new"]) == 1
    assert capfd.readouterr().err.startswith("mtime mismatch (")
    assert not Path("new").exists()


@pytest.mark.parametrize("program", [mkcow.main, moo.main])
def test_programs_exit(program: object, monkeypatch: pytest.MonkeyPatch, capsys: Lines) -> None:
    monkeypatch.setattr("sys.argv", ["program"])
    assert callable(program)
    with pytest.raises(SystemExit) as caught:
        program()
    assert caught.value.code in (1, 2)
