"""`uml find`: files inside of images and trees, by name and type."""

from __future__ import annotations

import os

import click

from runtime.cli.trees import Troubles, as_json, keep, run, show, show_json


@click.command("find")
@click.argument("word", metavar="SRC[:PART][:PATH]")
@click.argument("pattern", metavar="[PATTERN]", required=False)
@click.option("--type", "kind", metavar="f|d|l|b|c|p|s", help="Only files, directories, links, and so on.")
@as_json
@keep
def command(word: str, pattern: str | None, kind: str | None, as_json: bool, keep: int | None) -> int:
    """List what lies at and below a path inside an image, a humfs tree or a directory.

    PATTERN is a glob of the name, or of the whole path if there is a slash in it.

    \b
    Example:
      uml find disk.img '*.conf'
      uml find disk.img:2:/home --type f
    """
    from runtime.inspect import fields, listing, location
    from runtime.inspect.tree import open_tree

    trouble = Troubles()
    records: list[dict[str, object]] = []

    async def work() -> None:
        place = location.parse(word)
        async with open_tree(place) as tree:
            with tree.naming():
                async for node in listing.find(tree.filesystem, place.inside, trouble, pattern=pattern, kind=kind):
                    if as_json:
                        records.append(await fields.fields(tree.filesystem, node))
                    else:
                        show(os.fsdecode(node.path))

    run(work, keep, [word])
    if as_json:
        show_json(records)
    return trouble.status
