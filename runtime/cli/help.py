"""`uml help`: the manual, page by page."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from runtime.cli.path import PATH
from umlfs.errors import UsageError


@click.command("help")
@click.option(
    "--man",
    type=PATH,
    metavar="DIR",
    help="Write man pages of all commands to DIR.",
)
@click.argument("topic", required=False)
def command(topic: str | None, man: Path | None) -> None:
    """Show the page about TOPIC: a command, or a page of the manual. Without one, list them.

    \b
    Example:
      uml help
      uml help networks
      uml help --man /usr/local/share/man/man1
    """
    from runtime.cli import COMMANDS, manual, pages
    from runtime.cli.group import uml

    if man is not None:
        manual.write_all(man)
        return
    found_pages = pages.topics()
    if topic is None:
        click.echo(f"Commands: {', '.join(sorted(COMMANDS))}\n\nPages: {', '.join(sorted(found_pages))}")
        return
    if topic in COMMANDS:
        context = click.get_current_context().find_root()
        found = uml.get_command(context, topic)
        assert found is not None
        click.echo_via_pager(found.get_help(click.Context(found, context, topic)))
    elif topic in found_pages:
        _show(found_pages[topic].read_text())
    else:
        raise _unknown(topic, [*COMMANDS, *found_pages])


def _show(text: str) -> None:
    if not sys.stdout.isatty():
        click.echo(text, nl=False)
        return
    from rich.console import Console
    from rich.markdown import Markdown

    console = Console()
    with console.pager(styles=True):
        console.print(Markdown(text))


def _unknown(topic: str, known: list[str]) -> UsageError:
    from difflib import get_close_matches

    near = get_close_matches(topic, known, n=1)
    return UsageError(f"{topic}: no such page", f"did you mean '{near[0]}'?" if near else "'uml help' lists them")
