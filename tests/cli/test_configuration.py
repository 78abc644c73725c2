"""Defaults from files: what holds, from where, and what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from runtime.cli import boot, invoke, mount, run
from runtime.cli.defaults import defaults_of, named_words
from runtime.host import configuration


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "config" / "umlfs").mkdir(parents=True)
    (tmp_path / "project" / "below").mkdir(parents=True)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path / "project" / "below")
    return tmp_path


def own(home: Path, text: str) -> None:
    (home / "config" / "umlfs" / "config.toml").write_text(text)


def project(home: Path, text: str) -> Path:
    path = home / "project" / ".umlfs.toml"
    path.write_text(text)
    return path


def shown(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    assert invoke(["config", "show", "--json"]) == 0
    return {f"{each['command']}.{each['option']}": each["value"] for each in json.loads(capsys.readouterr().out)}


def test_the_command_line_counts_before_the_project_before_the_user(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own(home, '[ls]\nlong = true\n[run]\nmem = "64M"\n')
    assert invoke(["ls", "."]) == 0
    (home / "project" / "below" / "file").touch()
    assert invoke(["ls", "."]) == 0
    assert "rw" in capsys.readouterr().out
    project(home, '[ls]\nlong = false\n[run]\nmem = "128M"\n')
    assert invoke(["ls", "."]) == 0
    assert "rw" not in capsys.readouterr().out
    assert invoke(["ls", "-l", "."]) == 0
    assert "rw" in capsys.readouterr().out
    assert shown(capsys) == {"ls.long": False, "run.mem": "128M"}


def test_paths_are_from_the_place_of_the_file(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of options, and in the words that names of machines and mounts stand for."""
    monkeypatch.setenv("HOME", str(home / "me"))
    own(
        home,
        "[run]\nkernel = '~/linux'\n[machines]\nvm = ['--root', 'hostfs:tree', '--mem=64M', 'ubd0=~/disk', 'con=x']\n",
    )
    project(home, "[run]\nmount = ['/src=.', '/doc=packages:']\n[mounts]\nit = ['disk.img:2', 'mnt', '-o', 'ro']\n")
    (home / "project/disk.img").touch()
    found = configuration.settings()
    assert defaults_of("run", run.command, found) == {
        "kernel": str(home / "me/linux"),
        "mounts": [f"/src={home}/project", "/doc=packages:"],
    }
    config, top = home / "config/umlfs", home / "project"
    words = configuration.expanded("boot", ["vm", "./x"], named_words("boot", boot.command, found))
    assert words == [
        "--name",
        "vm",
        "--root",
        f"hostfs:{config}/tree",
        "--mem=64M",
        f"ubd0={home}/me/disk",
        "con=x",
        "./x",
    ]
    words = configuration.expanded("mount", ["it"], named_words("mount", mount.command, found))
    assert words == [f"{top}/disk.img:2", f"{top}/mnt", "-o", "ro"]


def test_options_of_commands_in_groups(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own(home, '["cow info"]\njson = true\n')
    (home / "b.img").write_bytes(bytes(4096))
    assert invoke(["cow", "create", str(home / "c.cow"), str(home / "b.img")]) == 0
    assert invoke(["cow", "info", str(home / "c.cow")]) == 0
    assert json.loads(capsys.readouterr().out)["valid"] is True


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x", "no TOML"),
        ("ls = 1", "no table"),
        ("[ls]\nlnog = true", "did you mean 'long'"),
        ('[ls]\nlong = "yes"', "takes true or false"),
        ('[run]\nmount = "/x"', "takes a list"),
        ("[nothing]\nx = 1", "no command"),
    ],
)
def test_what_is_wrong_is_told(home: Path, capsys: pytest.CaptureFixture[str], text: str, said: str) -> None:
    own(home, text)
    assert invoke(["config", "show"]) == 2
    line = capsys.readouterr().err
    assert said in line
    assert "config.toml" in line


def test_a_wrong_table_hinders_no_other_command(home: Path) -> None:
    own(home, "[run]\nnothing = 1\n")
    assert invoke(["ls", "."]) == 0
    assert invoke(["run", "--dry-run"]) == 125 or invoke(["run", "--dry-run"]) == 2


def test_a_projects_file_that_others_could_write_is_passed_over(home: Path) -> None:
    path = project(home, "[ls]\nlong = true\n")
    assert list(configuration.files()) == [path]
    path.chmod(0o666)
    assert list(configuration.files()) == []
    path.chmod(0o644)
    if os.geteuid() == 0:
        os.chown(path, 12345, 12345)
        assert list(configuration.files()) == []


def test_a_project_runs_no_programs_on_this_host(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project(home, '[boot]\non-panic = "true"\n')
    assert invoke(["config", "show"]) == 2
    assert "may not set" in capsys.readouterr().err


def test_names_stand_for_words(home: Path) -> None:
    own(home, '[machines]\nweb = ["--mem", "64M"]\n[mounts]\nhome = ["disk.img:2", "/mnt"]\nbad = 1\n')
    found = configuration.settings()
    assert configuration.expanded("boot", ["-d", "web"], found) == ["-d", "--name", "web", "--mem", "64M"]
    assert configuration.expanded("boot", ["--name", "x", "web"], found) == ["--name", "x", "--mem", "64M"]
    assert configuration.expanded("boot", ["--", "web"], found) == ["--", "web"]
    assert configuration.expanded("mount", ["home"], found) == ["disk.img:2", "/mnt"]
    assert configuration.expanded("run", ["home"], found) == ["home"]
    with pytest.raises(Exception, match="no list of words"):
        configuration.expanded("mount", ["bad"], found)
