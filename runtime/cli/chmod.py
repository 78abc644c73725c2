"""`uml chmod`: permissions inside of images and trees."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from runtime.inspect.changing import WritableTree
    from runtime.inspect.paths import Node
    from umlfs.filesystem import SetAttr


@click.command("chmod", context_settings={"ignore_unknown_options": True})
@click.argument("mode")
@click.argument("paths", metavar="SRC[:PART]:PATH...", nargs=-1, required=True)
@click.option("-R", "--recursive", is_flag=True, help="Directories, with all that is in them.")
def command(mode: str, paths: tuple[str, ...], recursive: bool) -> None:
    """Change permissions inside of images, humfs trees or machines. MODE is as for chmod(1): 644, u+x, go-rwx.

    \b
    Example:
      uml chmod 600 disk.img:/etc/ssh/ssh_host_rsa_key
      uml chmod -R a+rX disk.img:/srv
    """
    from runtime.cli.changing import change
    from runtime.inspect import changing, modes
    from umlfs.filesystem import SetAttr

    places = changing.places(paths)
    modes.check(mode)

    def changes(node: Node) -> SetAttr | None:
        if node.is_link:
            return None
        return SetAttr(mode=modes.applied(mode, changing.mode_of(node), directory=node.is_directory))

    async def work(tree: WritableTree) -> None:
        for place in places:
            await tree.change(place.inside, changes, recursive=recursive)

    change(places, work)
