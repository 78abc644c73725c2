"""`uml edit`: a file inside of an image or tree, in an editor."""

from __future__ import annotations

import click


@click.command("edit")
@click.argument("word", metavar="SRC[:PART]:PATH")
@click.option("--editor", envvar=["VISUAL", "EDITOR"], default="editor", metavar="COMMAND", help="[$VISUAL, $EDITOR]")
def command(word: str, editor: str) -> None:
    """Edit a file inside of an image, humfs tree or machine, with an editor of this host.

    A new file takes the old one's place at once, with its owner, mode and attributes; a file with several names is
    written where it is, and keeps them. Nothing is done if the editor fails or changes nothing. What you wrote, but
    could not be put there, stays in a file of this host, which the error names.

    \b
    Example:
      uml edit disk.img:/etc/fstab
    """
    from runtime.cli.trees import run
    from runtime.inspect import changing
    from runtime.inspect.editing import edit

    place = changing.place(word)
    run(lambda: edit(place, editor))
