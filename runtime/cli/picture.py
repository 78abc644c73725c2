"""The map of a disk, as lines, as JSON, or as a picture."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from runtime.cli.printing import printable
from umlfs.errors import UmlError, UsageError

if TYPE_CHECKING:
    from runtime.images.formats import Image
    from runtime.images.mapping import Map

Command = TypeVar("Command", bound=Callable[..., object])


def picture_options(command: Command) -> Command:
    """Give a command `--png` and `--svg`."""
    return _png(_svg(command))


_png = click.option("--png", metavar="FILE", help="Draw it as PNG into FILE; - is standard output.")
_svg = click.option("--svg", metavar="FILE", help="Draw it as SVG into FILE; - is standard output.")


def show_map(image: Image, png: str | None, svg: str | None, *, as_json: bool) -> None:
    """Print the map, or draw it where a picture is wanted. UmlError, UsageError."""
    from runtime.images.mapping import map_of

    if as_json and (png is not None or svg is not None):
        raise UsageError("--json and a picture at once", "ask for one, then for the other")
    found = map_of(image)
    if png is not None or svg is not None:
        for kind, name in (("png", png), ("svg", svg)):
            if name is not None:
                _draw(found, kind, name)
        return
    if as_json:
        ranges = [{**asdict(each), "kind": each.kind.value} for each in found.ranges]
        click.echo(json.dumps({"size": found.size, "layers": list(map(asdict, found.layers)), "ranges": ranges}))
        return
    for each in found.ranges:
        name = printable(found.layers[each.depth].path)
        click.echo(f"{each.offset:>16} {each.length:>16} {each.kind.value} {name}")


def _draw(found: Map, kind: str, name: str) -> None:
    from runtime.images import picture
    from umlfs.host.newfile import new_file

    data = picture.png(found) if kind == "png" else picture.svg(found).encode()
    if name == "-":
        sys.stdout.buffer.write(data)
        return
    try:
        with new_file(name, replace=True) as fd, open(fd, "wb", closefd=False) as file:
            file.write(data)
    except OSError as error:
        raise UmlError(f"{Path(name)}: {error.strerror}", None) from None
