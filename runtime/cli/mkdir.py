"""`uml mkdir`: directories inside of images and trees."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from runtime.inspect.changing import WritableTree


@click.command("mkdir")
@click.argument("paths", metavar="SRC[:PART]:PATH...", nargs=-1, required=True)
@click.option("-p", "--parents", is_flag=True, help="Those above it as well; one that is there is right.")
@click.option("-m", "--mode", default="755", metavar="MODE", show_default=True, help="Its permissions.")
def command(paths: tuple[str, ...], parents: bool, mode: str) -> None:
    """Make directories inside of images, humfs trees or machines. They belong to the guest's root.

    \b
    Example:
      uml mkdir -p disk.img:/srv/www/html
    """
    from runtime.cli.changing import change
    from runtime.inspect import changing, modes

    places = changing.places(paths)
    bits = modes.applied(modes.check(mode), 0o777, directory=True)

    async def work(tree: WritableTree) -> None:
        for place in places:
            await tree.make_directory(place.inside, bits, parents=parents)

    change(places, work)
