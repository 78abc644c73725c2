"""`uml cat`: the contents of files inside of images and trees."""

from __future__ import annotations

import click

from runtime.cli.trees import keep, run


@click.command("cat")
@click.argument("paths", metavar="SRC[:PART]:PATH...", nargs=-1, required=True)
@keep
def command(paths: tuple[str, ...], keep: int | None) -> None:
    """Write the contents of files inside of images, humfs trees or directories to standard output.

    \b
    Example:
      uml cat disk.img:/etc/fstab
      uml cat disk.img:2:/var/log/syslog | less
    """
    from runtime.inspect import location
    from runtime.inspect.output import cat
    from runtime.inspect.tree import open_tree

    async def work() -> None:
        for word in paths:
            place = location.parse(word)
            async with open_tree(place) as tree:
                with tree.naming():
                    await cat(tree.filesystem, place.inside, 1)

    run(work, keep, paths)
