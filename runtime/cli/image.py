"""`uml image`: build, convert and look after images of guests' filesystems."""

from __future__ import annotations

import click


@click.group("image")
def command() -> None:
    """Images of guests' filesystems: build them, convert them, change their size.

    \b
    Example:
      uml image build debian.img --suite bookworm
      uml image convert debian.img debian.tar.zst
    """
