"""`uml tree`: a drawing of what is inside of an image or a tree."""

from __future__ import annotations

import click

from runtime.cli.trees import Troubles, as_json, keep, run, show, show_json


@click.command("tree")
@click.argument("word", metavar="SRC[:PART][:PATH]")
@as_json
@keep
def command(word: str, as_json: bool, keep: int | None) -> int:
    """Draw the tree inside an image, a humfs tree or a directory. With --json, a list of all nodes.

    \b
    Example:
      uml tree disk.img:/etc/systemd
    """
    from runtime.inspect import fields, listing, location
    from runtime.inspect.tree import open_tree

    trouble = Troubles()
    records: list[dict[str, object]] = []

    async def work() -> None:
        place = location.parse(word)
        async with open_tree(place) as tree:
            with tree.naming():
                if as_json:
                    async for node in listing.find(tree.filesystem, place.inside, trouble):
                        records.append(await fields.fields(tree.filesystem, node))
                    return
                async for line in listing.tree_lines(tree.filesystem, place.inside, trouble):
                    show(line)

    run(work, keep, [word])
    if as_json:
        show_json(records)
    return trouble.status
