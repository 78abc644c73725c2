"""`uml ln`: links inside of images and trees."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from runtime.inspect.changing import WritableTree


@click.command("ln")
@click.argument("target", metavar="PATH")
@click.argument("word", metavar="SRC[:PART]:NAME")
@click.option("-s", "--symbolic", is_flag=True, help="A symlink, to PATH as it is written.")
@click.option("-f", "--force", is_flag=True, help="Replace a file that is there.")
def command(target: str, word: str, symbolic: bool, force: bool) -> None:
    """Make a link called NAME inside of an image, humfs tree or machine, to the PATH in it.

    \b
    Example:
      uml ln -s ../usr/share/zoneinfo/UTC disk.img:/etc/localtime
    """
    from runtime.cli.changing import change
    from runtime.inspect import changing

    place = changing.place(word)
    whole = symbolic or target.startswith("/")
    to = os.fsencode(target) if whole else changing.places((target, word))[0].inside

    async def work(tree: WritableTree) -> None:
        await (tree.symlink if symbolic else tree.link)(to, place.inside, replace=force)

    change([place], work)
