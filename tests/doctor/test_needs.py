"""What commands need: one table for the commands, the doctor and the docs."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import click
import pytest

from runtime.cli import COMMANDS, invoke
from runtime.doctor import checks
from runtime.host.needs import NEEDS, find_program, need, shown
from umlfs.errors import UmlError

ROOT = Path(__file__).resolve().parents[2]


def test_commands_are_there() -> None:
    for each in NEEDS:
        for words in each.commands:
            first, *rest = words.split()
            command = COMMANDS[first]
            assert not rest or (isinstance(_loaded(command), click.Group) and rest[0] in _loaded(command).commands), (
                words
            )


def _loaded(target: str) -> click.Group:

    module, _, name = target.partition(":")
    found = getattr(importlib.import_module(module), name or "command")
    assert isinstance(found, click.Command)
    return found  # type: ignore[return-value]


def test_each_is_named_once() -> None:
    names = [each.name for each in NEEDS]
    assert len(names) == len(set(names))


def test_what_is_looked_for_is_in_the_table() -> None:
    for path in (ROOT / "runtime").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("find_program", "path_of", "need"):
                (word,) = node.args
                assert not isinstance(word, ast.Constant) or need(str(word.value)), path


def test_the_docs_have_it() -> None:
    page = (ROOT / "docs/doctor.md").read_text()
    for each in NEEDS:
        package = f"`{each.package}`" if each.package else ""
        row = f"| {each.name} | {package} | {shown(each.commands).replace('|', ', ')} | {each.purpose} |\n"
        assert row in page


def test_the_doctor_names_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing for other commands does not keep guests from running."""
    monkeypatch.setattr(checks, "path_of", lambda name: None if name == "mkfs.xfs" else f"/bin/{name}")
    found = {check.name: check for check in checks._programs()}
    assert {each.package for each in NEEDS if each.package} - found.keys() == {"fuse3", "slirp4netns"}
    assert [name for name, check in found.items() if not check.ok] == ["xfsprogs"]
    missing = found["xfsprogs"]
    assert (missing.found, missing.required) == ("not there: mkfs.xfs", False)
    assert str(missing.mend).endswith("apt-get install xfsprogs")
    assert "uml image build|convert|create" in missing.purpose


def test_a_program_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name, path: None)
    with pytest.raises(UmlError, match=r"the program mkfs\.xfs is not there; install it with `apt install xfsprogs`"):
        find_program("mkfs.xfs")


@pytest.mark.parametrize("name", ["x.qcow2", "x.xfs", "x.squashfs", "x.tar.zst", "x.img"])
def test_it_is_said_before_anything_is_done(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("runtime.images.build.require_mode", lambda: None)
    monkeypatch.setattr("runtime.images.build._packages", None)
    monkeypatch.setattr("runtime.host.needs.path_of", lambda name: None)
    assert invoke(["image", "build", str(tmp_path / name), "--suite", "bookworm"]) == 1
    assert capsys.readouterr().err.count("is not there; install it with `apt install ") == 1
    assert not (tmp_path / name).exists()
