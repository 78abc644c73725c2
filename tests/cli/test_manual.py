"""Man pages, help topics, and completion in real shells."""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from runtime.appliance import client
from runtime.cli import COMMANDS, invoke, manual
from tests import needs
from tests.ordinary import ROOT
from umlfs import sources


def test_every_command_has_a_man_page_that_man_understands(tmp_path: Path) -> None:
    manual.write_all(tmp_path)
    assert {f"uml-{name}.1" for name in COMMANDS} | {"uml.1", "uml-cow-create.1"} <= {
        p.name for p in tmp_path.iterdir()
    }
    command: list[str | Path] = [needs.program("mandoc"), "-T", "lint", "-W", "error", *sorted(tmp_path.iterdir())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == ""
    page = subprocess.run(
        [needs.program("mandoc"), "-T", "ascii", tmp_path / "uml-run.1"], capture_output=True, text=True, check=True
    )
    text = re.sub(".\b", "", page.stdout)
    assert "NAME\n" in text
    assert "--mount" in text


def test_help_shows_commands_and_pages(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["help"]) == 0
    listed = capsys.readouterr().out
    assert "networks" in listed or "network" in listed
    assert invoke(["help", "web"]) == 0
    assert "--read-only" in capsys.readouterr().out
    assert invoke(["help", "configuration"]) == 0
    assert "uml config show" in capsys.readouterr().out
    assert invoke(["help", "confguration"]) == 2
    assert "did you mean 'configuration'" in capsys.readouterr().err


@pytest.fixture
def shell_home(tmp_path: Path) -> Path:
    make_home(tmp_path)
    return tmp_path


def make_home(home: Path) -> None:
    """A home with `uml` on its PATH, an image with a partition table, and a tree."""
    (home / "bin").mkdir()
    program = home / "bin" / "uml"
    program.write_text(
        f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -P -c "from runtime.cli import main; main()" "$@"\n'
    )
    program.chmod(0o755)
    (home / "tree" / "etc").mkdir(parents=True)
    (home / "tree" / "etc" / "motd").touch()
    image = home / "disk.img"
    image.write_bytes(bytes(4 << 20))
    table = b"label: dos\n2048,2048\n4096,2048\n"
    subprocess.run([needs.program("sfdisk"), "-q", image], input=table, check=True, capture_output=True)


def variables(home: Path) -> dict[str, str]:
    return {
        "HOME": str(home),
        "XDG_RUNTIME_DIR": f"{home}/run",
        "PATH": f"{home}/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
    }


def asked(home: Path, line: str) -> list[str]:
    """What bash gets for a line."""
    script = (
        'eval "$(uml completion bash)"; compopt() { :; }; '
        'COMP_LINE="$1" COMP_POINT=${#1}; _uml_complete; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["/bin/bash", "-c", script, "bash", line],
        cwd=home,
        env=variables(home),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_bash_completes(shell_home: Path) -> None:
    assert asked(shell_home, "uml cons") == ["console"]
    assert asked(shell_home, "uml cow cr") == ["create"]
    assert "--recursive" in asked(shell_home, "uml ls --rec")
    for command in ("ls", "boot", "image map", "image rebase", "run --"):
        assert asked(shell_home, f"uml {command} di") == ["disk.img"]
    assert asked(shell_home, "uml ls disk.img:") == ["1:", "2:", "/"]
    assert asked(shell_home, "uml ls tree:/e") == ["/etc/"]
    assert asked(shell_home, "uml cat tree:/etc/m") == ["/etc/motd"]


def test_machines_are_completed(shell_home: Path) -> None:
    for name in ("web", "worker", "ended"):
        (shell_home / ".uml" / name).mkdir(parents=True)
        (shell_home / ".uml" / name / "pid").write_text(f"{os.getpid()}\n")
    with open(shell_home / ".uml/web/pid") as web, open(shell_home / ".uml/worker/pid") as worker:
        fcntl.flock(web, fcntl.LOCK_EX)
        fcntl.flock(worker, fcntl.LOCK_EX)
        assert asked(shell_home, "uml halt ") == ["web", "worker"]
        assert asked(shell_home, "uml console wo") == ["worker"]
        assert asked(shell_home, "uml cp we") == ["web:"]


@pytest.mark.guest
def test_names_inside_an_image_are_completed(monkeypatch: pytest.MonkeyPatch) -> None:
    with TemporaryDirectory(prefix="uml-", dir="/tmp") as text:
        home = Path(text)
        make_home(home)
        (home / "run").mkdir(mode=0o700)
        (home / "tree/etc/host name").touch()
        monkeypatch.setenv("XDG_RUNTIME_DIR", f"{home}/run")
        mkfs: list[str | Path] = [needs.program("mkfs.ext4"), "-q", "-d", home / "tree", home / "root.img", "8M"]
        subprocess.run(mkfs, check=True)
        try:
            assert asked(home, "uml ls root.img:/e") == ["/etc/"]
            assert asked(home, "uml cat root.img:/etc/m") == ["/etc/motd"]
            assert asked(home, "uml cat root.img:/etc/h") == ["/etc/host\\", "name"]
        finally:  # Completion keeps the guest for the next.
            client.end_kept(sources.parse(str(home / "root.img")))


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_read_what_is_for_them(shell_home: Path, shell: str) -> None:
    program = needs.program(shell)
    done = subprocess.run([shell_home / "bin" / "uml", "completion", shell], capture_output=True, check=True)
    script = shell_home / "completion"
    script.write_bytes(done.stdout)
    subprocess.run([program, "-n", script], check=True)
