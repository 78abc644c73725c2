"""`uml ls`: what is in a directory of an image or a tree."""

from __future__ import annotations

import click

from runtime.cli.trees import Troubles, as_json, keep, run, show, show_json


@click.command("ls", context_settings={"help_option_names": ["--help"]})
@click.argument("paths", metavar="SRC[:PART][:PATH]...", nargs=-1, required=True)
@click.option("-l", "--long", "long", is_flag=True, help="Modes, owners, sizes and times, too.")
@click.option("-a", "--all", "all_names", is_flag=True, help="Names that begin with a dot, too.")
@click.option("-R", "--recursive", is_flag=True, help="All directories below, too.")
@click.option("-h", "human", is_flag=True, help="With -l, sizes as 1.1K, 12M.")
@click.option("-t", "by_time", is_flag=True, help="Newest first.")
@click.option("-S", "by_size", is_flag=True, help="Largest first.")
@click.option("-r", "--reverse", is_flag=True, help="The other way round.")
@click.option("-1", "single", is_flag=True, help="One name a line, as always.")
@as_json
@keep
def command(
    paths: tuple[str, ...],
    long: bool,
    all_names: bool,
    recursive: bool,
    human: bool,
    by_time: bool,
    by_size: bool,
    reverse: bool,
    single: bool,
    as_json: bool,
    keep: int | None,
) -> int:
    """List directories inside of images, humfs trees or directories.

    \b
    Example:
      uml ls disk.img
      uml ls -l disk.img:2:/etc
      uml ls -R --json guest.cow:/home
    """
    from runtime.inspect import listing, location
    from runtime.inspect.tree import open_tree

    trouble, order = Troubles(), listing.Order(by_time, by_size, reverse)
    records: list[dict[str, object]] = []

    async def work() -> None:
        for word in paths:
            if len(paths) > 1 and not as_json:
                show(f"{word}:")
            place = location.parse(word)
            blocks_shown = 0
            async with open_tree(place) as tree:
                with tree.naming():
                    blocks = listing.listing(
                        tree.filesystem, place.inside, trouble, recursive=recursive, all_names=all_names, order=order
                    )
                    async for block in blocks:
                        if as_json:
                            records.extend(await listing.records(tree.filesystem, block))
                            continue
                        if block.heading is not None:
                            if blocks_shown:
                                show("")
                            show(f"{block.heading}:")
                        blocks_shown += 1
                        for line in await listing.lines(tree.filesystem, block, long=long, human=human):
                            show(line)

    run(work, keep, paths)
    if as_json:
        show_json(records)
    return trouble.status
