"""`uml df`: how full filesystems inside of images are."""

from __future__ import annotations

import click

from runtime.cli.trees import as_json, keep, run, show, show_json


@click.command("df")
@click.argument("sources", metavar="SRC[:PART]...", nargs=-1, required=True)
@as_json
@keep
def command(sources: tuple[str, ...], as_json: bool, keep: int | None) -> None:
    """Show how large and how full the filesystems inside of images are, and below humfs trees and directories.

    \b
    Example:
      uml df disk.img:1 disk.img:2
    """
    from runtime.inspect import location
    from runtime.inspect.attributes import space
    from runtime.inspect.fields import human

    async def work() -> list[dict[str, object]]:
        return [await space(location.parse(word)) for word in sources]

    found = run(work, keep, sources)
    if as_json:
        show_json(found)
        return
    show(f"{'SOURCE':<32} {'TYPE':<8} {'SIZE':>8} {'USED':>8} {'FREE':>8} {'USE%':>5} {'FILES':>9} {'FREE':>9}")
    for each in found:
        sizes = [human(int(str(each[name]))) for name in ("size", "used", "available")]
        percent = f"{each['percent']}%"
        columns = " ".join(f"{text:>8}" for text in sizes)
        show(
            f"{each['source']!s:<32} {each['filesystem']!s:<8} {columns} {percent:>5} "
            f"{each['files']!s:>9} {each['files_free']!s:>9}"
        )
