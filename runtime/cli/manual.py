"""The manual: man pages made of the commands' help, and the pages of the documentation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click

from runtime.cli import COMMANDS


def write_all(folder: Path) -> None:
    """Write a man page for each command, and one for `uml`, into `folder`, which is made. OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages():
        (folder / f"{name}.1").write_text(text, encoding="utf-8")


def pages() -> Iterator[tuple[str, str]]:
    """The names (`uml-run`) and the text of all man pages, as roff."""
    from runtime.cli.group import uml

    context = click.Context(uml, info_name="uml")
    yield "uml", page(uml, context, sorted(COMMANDS))
    for name in sorted(COMMANDS):
        command = uml.get_command(context, name)
        assert command is not None
        yield from _of_command(command, click.Context(command, context, name))


def _of_command(command: click.Command, context: click.Context) -> Iterator[tuple[str, str]]:
    children = sorted(command.commands) if isinstance(command, click.Group) else []
    yield context.command_path.replace(" ", "-"), page(command, context, children)
    if isinstance(command, click.Group):
        for name in children:
            child = command.commands[name]
            yield from _of_command(child, click.Context(child, context, name))


def page(command: click.Command, context: click.Context, children: list[str]) -> str:
    """The man page of one command, as roff."""
    path = context.command_path
    summary, body, example = _parts(command.help or "")
    lines = [f'.TH "{path.replace(" ", "-").upper()}" 1 "" umlfs "User commands"']
    lines += [".SH NAME", f"{_roff(path.replace(' ', '-'))} \\- {_roff(summary.rstrip('.'))}"]
    lines += [".SH SYNOPSIS", f".B {_roff(path)}", _roff(" ".join(command.collect_usage_pieces(context)))]
    lines += [".SH DESCRIPTION", _roff(summary), *_paragraphs(body)]
    options = [record for each in command.get_params(context) if (record := each.get_help_record(context))]
    lines += [".SH OPTIONS"] if options else []
    for words, text in options:
        lines += [".TP", f".B {_roff(words)}", _roff(text)]
    if children:
        lines += [".SH COMMANDS"]
        for name in children:
            lines += [
                ".TP",
                f".B {_roff(path.replace(' ', '-'))}\\-{_roff(name)}(1)",
                _roff(_summary(command, context, name)),
            ]
    if example:
        lines += [".SH EXAMPLES", ".nf", *map(_roff, example), ".fi"]
    lines += [".SH EXIT STATUS", "0 for success, 1 for a failure, 2 for wrong usage, unless said otherwise above."]
    if path != "uml":
        lines += [".SH SEE ALSO", ".BR uml (1)"]
    return "\n".join(lines) + "\n"


def _summary(command: click.Command, context: click.Context, name: str) -> str:
    child = command.get_command(context, name) if isinstance(command, click.Group) else None
    return "" if child is None else child.get_short_help_str(200)


def _parts(text: str) -> tuple[str, list[str], list[str]]:
    """The first sentence's paragraph, the other paragraphs, and the lines of the example."""
    paragraphs = re.split(r"\n\s*\n", text.strip())
    plain = [" ".join(each.split()) for each in paragraphs if not each.lstrip().startswith("\b")]
    literal = [line for each in paragraphs if each.lstrip().startswith("\b") for line in each.split("\n")]
    example = [line.strip() for line in literal if line.strip() not in ("", "\b", "Example:")]
    first, _, rest = plain[0].partition(". ") if plain else ("", "", "")
    return first, [each for each in (rest, *plain[1:]) if each], example


def _paragraphs(texts: list[str]) -> list[str]:
    return [line for each in texts for line in (".PP", _roff(each))]


def _roff(text: str) -> str:
    """`text` on one line, with nothing in it that roff would obey."""
    escaped = " ".join(text.split()).replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    return f"\\&{escaped}" if escaped.startswith((".", "\\(aq")) else escaped
