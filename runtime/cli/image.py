"""`uml image`: build, convert and look after images of guests' filesystems."""

from __future__ import annotations

import os

import click

from runtime.cli.counter import activity
from runtime.cli.failure import printable

FORMATS = ("raw", "ext4", "qcow2", "humfs", "dir", "tar", "oci")
"""What can be made. Spelled out: the library that knows takes time to import."""
force_option = click.option("--force", is_flag=True, help="Replace an image that is there, once the new one is whole.")


def warn(line: str) -> None:
    """Say something on standard error that is no failure."""
    click.echo(f"uml: {printable(line)}", err=True)


@click.group("image")
def command() -> None:
    """Images of guests' filesystems: build them, convert them, change their size.

    \b
    Example:
      uml image build debian.img --suite bookworm
      uml image convert debian.img debian.tar.zst
      uml image resize debian.img 8G
    """


@command.command("convert")
@click.option("--format", "name", type=click.Choice(FORMATS), help="What to make; by default as the name of DST ends.")
@click.option("--size", metavar="SIZE", help="Of the new filesystem; by default what the files need, and a fifth more.")
@force_option
@click.argument("source", metavar="SRC")
@click.argument("destination", metavar="DST")
def convert_(source: str, destination: str, name: str | None, size: str | None, force: bool) -> None:
    """Make the image DST with the contents of SRC, which stays as it is.

    Both are a raw image, qcow2, a humfs directory, a plain directory, a tar archive (.gz, .xz, .zst) or an OCI layout;
    SRC may be a COW file, or what `docker save` writes. What SRC is shows; what DST is to be, the end of its name says
    (.img .raw .ext4 .qcow2 .humfs .tar .tar.gz .tar.xz .tar.zst .oci), a word before it (humfs:DIR), or --format.

    \b
    Example:
      uml image convert debian.img humfs:debian
      uml image convert image.oci debian.ext4 --size 4G
      uml image convert root.cow flat.qcow2
    """
    import trio

    from humfs.superblock import parse_size
    from runtime.images import convert, formats

    made = formats.destination(destination, formats.Format(name) if name else None)
    with activity(f"convert {printable(os.path.basename(source))}") as progress:
        writing = convert.Writing(force, parse_size(size) if size else None, _epoch(), warn, progress)
        trio.run(convert.convert, formats.source(source), made, writing)


def _epoch() -> int | None:
    from runtime.images.epoch import source_date_epoch

    return source_date_epoch(os.environ)
