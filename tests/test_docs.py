"""The documentation is true: its links lead somewhere, its Python examples run, its commands exist."""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from runtime.cli.group import uml
from tests.ordinary import accounts_at_rest

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
SHELL = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`((?:\./)?uml [^`]+)`")
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def examples() -> Iterator[object]:
    for page in PAGES:
        text = page.read_text()
        for match in BLOCK.finditer(text):
            line = text.count("\n", 0, match.start(1)) + 1
            # The leading lines make the numbers in a traceback those of the page.
            yield pytest.param(page, "\n" * (line - 1) + match[1], id=f"{page.relative_to(ROOT)}:{line}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)", page.read_text())
    missing = [to for to in targets if "://" not in to and not (page.parent / to).exists()]
    assert missing == []


@pytest.mark.parametrize(("page", "code"), list(examples()))
def test_python_example_runs(page: Path, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with accounts_at_rest() if "useradd" in code else contextlib.nullcontext():
        exec(compile(code, str(page), "exec"), {"__name__": "__main__"})


def commands(text: str) -> Iterator[str]:
    """What begins with `uml`: lines of blocks for a shell, and words within a sentence or a table."""
    for block in SHELL.findall(text):
        yield from (line.removeprefix("$ ").removeprefix("./") for line in block.replace("\\\n", " ").splitlines())
    yield from (span.replace("\\|", "|").removeprefix("./") for span in SPAN.findall(SHELL.sub("", text)))


def words(line: str) -> list[str] | None:
    """Of the command before the first pipe or redirection; None if it is none of ours."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    try:
        found = list(lexer)
    except ValueError:
        return None
    end = next((n for n, word in enumerate(found) if word and set(word) <= set("|&;<>")), len(found))
    return found[1:end] if found[:1] == ["uml"] and len(found) > 1 and not set(found[1]) & set("…[|") else None


def check_command(given: list[str]) -> None:
    """click.ClickException if no such command is there, or it has no such option."""
    context = click.Context(uml, info_name="uml")
    command: click.Command = uml
    while isinstance(command, click.Group) and given:
        if given[0] in ("--help", "--version", "--debug", "-h", "COMMAND", "…"):
            given = given[1:]
            continue
        found = command.get_command(context, given[0])
        if found is None:
            raise click.UsageError(f"no such command: {given[0]}")
        command, given = found, given[1:]
    context = click.Context(command, **command.context_settings)
    if not context.ignore_unknown_options:
        value = ["it"] if given and given[-1].startswith("--") else []
        command.make_parser(context).parse_args([word for word in given if "…" not in word] + value)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_exist(page: Path) -> None:
    """With the options that the page gives them."""
    wrong = []
    for line in commands(page.read_text()):
        given = words(line)
        try:
            check_command(given or [])
        except click.ClickException as error:
            wrong.append(f"{line}: {error.format_message()}")
    assert wrong == []
