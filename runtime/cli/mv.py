"""`uml mv`: renaming inside of images and trees."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from runtime.inspect.changing import WritableTree


@click.command("mv")
@click.argument("word", metavar="SRC[:PART]:PATH")
@click.argument("target", metavar="PATH")
def command(word: str, target: str) -> None:
    """Rename a file or directory inside of an image, humfs tree or machine, or move it into a directory there.

    The second PATH is in the same source, written with it or without. A file that is there is replaced.

    \b
    Example:
      uml mv disk.img:/etc/motd /etc/motd.old
    """
    from runtime.cli.changing import change
    from runtime.inspect import changing

    place = changing.place(word)
    to = os.fsencode(target) if target.startswith("/") else changing.places((word, target))[1].inside

    async def work(tree: WritableTree) -> None:
        await tree.move(place.inside, to)

    change([place], work)
