"""`uml chown`: owners inside of images and trees."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from runtime.inspect.changing import WritableTree
    from runtime.inspect.paths import Node
    from umlfs.filesystem import SetAttr


@click.command("chown")
@click.argument("owner", metavar="[UID][:GID]")
@click.argument("paths", metavar="SRC[:PART]:PATH...", nargs=-1, required=True)
@click.option("-R", "--recursive", is_flag=True, help="Directories, with all that is in them.")
def command(owner: str, paths: tuple[str, ...], recursive: bool) -> None:
    """Change owners inside of images, humfs trees or machines. They are numbers: names are the guest's own.

    Set-user-id and set-group-id bits of files are dropped, as chown(1) does it.

    \b
    Example:
      uml chown -R 33:33 disk.img:/var/www
    """
    from runtime.cli.changing import change
    from runtime.inspect import changing
    from umlfs.filesystem import SetAttr

    uid, gid = _numbers(owner)
    places = changing.places(paths)

    def changes(node: Node) -> SetAttr | None:
        wanted = SetAttr(uid=uid, gid=gid)
        mode = changing.mode_of(node)
        if node.is_file and mode & changing.SET_ID:
            wanted.mode = mode & ~changing.SET_ID
        return wanted

    async def work(tree: WritableTree) -> None:
        for place in places:
            await tree.change(place.inside, changes, recursive=recursive)

    change(places, work)


def _numbers(owner: str) -> tuple[int | None, int | None]:
    from umlfs.errors import UsageError

    match = re.fullmatch(r"([0-9]{1,10})?(?::([0-9]{1,10}))?", owner)
    if match is None or not owner.strip(":") or any(int(each) >= 2**32 - 1 for each in match.groups() if each):
        raise UsageError(f"{owner}: not of the form UID, UID:GID or :GID", "for example 0:0")
    uid, gid = (None if each is None else int(each) for each in match.groups())
    return uid, gid
