"""`uml edit`: a file inside of an image or tree, in an editor."""

from __future__ import annotations

import click


@click.command("edit")
@click.argument("word", metavar="SRC[:PART]:PATH")
@click.option("--editor", envvar=["VISUAL", "EDITOR"], default="editor", metavar="COMMAND", help="[$VISUAL, $EDITOR]")
def command(word: str, editor: str) -> None:
    """Edit a file inside of an image, humfs tree or machine, with an editor of this host.

    The new contents take the file's place at once, with its owner, mode and attributes; nothing is done if the editor
    fails or changes nothing.

    \b
    Example:
      uml edit disk.img:/etc/fstab
    """
    from runtime.cli.trees import run
    from runtime.inspect import changing
    from runtime.inspect.editing import edit

    place = changing.place(word)
    run(lambda: edit(place, editor))
