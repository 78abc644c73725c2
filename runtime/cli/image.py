"""`uml image`: what disk images are made of."""

from __future__ import annotations

from dataclasses import asdict

import click

from runtime.cli.trees import as_json, run, show, show_json


@click.group("image")
def command() -> None:
    """Disk images.

    \b
    Example:
      uml image info disk.img
    """


@command.command("info")
@click.argument("word", metavar="FILE")
@as_json
def info_(word: str, as_json: bool) -> None:
    """Show what is on a disk image: partitions, filesystems, labels, how full they are, and the systems in them.

    \b
    Example:
      uml image info disk.qcow2
      uml image info --json guest.cow | jq .layers
    """
    from runtime.inspect.info import image_info
    from runtime.inspect.summary import summary

    found = run(lambda: image_info(word))
    if as_json:
        show_json(asdict(found))
        return
    for line in summary(found):
        show(line)
