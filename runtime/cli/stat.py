"""`uml stat`: the attributes of files inside of images and trees."""

from __future__ import annotations

import click

from runtime.cli.trees import as_json, keep, run, show, show_json


@click.command("stat")
@click.argument("paths", metavar="SRC[:PART]:PATH...", nargs=-1, required=True)
@as_json
@keep
def command(paths: tuple[str, ...], as_json: bool, keep: int | None) -> None:
    """Show all that is known of files inside of images, humfs trees or directories. Links are not followed.

    \b
    Example:
      uml stat disk.img:/etc/shadow
      uml stat --json disk.img:/dev/null
    """
    from runtime.inspect import location
    from runtime.inspect.attributes import attributes

    async def work() -> list[dict[str, object]]:
        return [await attributes(location.parse(word)) for word in paths]

    found = run(work, keep, paths)
    if as_json:
        show_json(found)
        return
    for record in found:
        for name, value in record.items():
            if isinstance(value, dict):
                for key, each in value.items():
                    show(f"{name:<10} {key} = {each}")
            else:
                show(f"{name:<10} {value}")
