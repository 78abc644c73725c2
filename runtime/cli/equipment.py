"""Options that say what a guest gets, for all commands that start one."""

from __future__ import annotations

import click

mounts = click.option(
    "--mount",
    "mounts",
    multiple=True,
    metavar="DIR=SRC[:OPTION]...",
    help="Put SRC at DIR in the guest. Options: ro, append, cache=WHEN...",
)
ubds = click.option(
    "--ubd", "ubds", multiple=True, metavar="SPEC", help="Attach a disk: ubd0=FILE or ubd0=COW,BACKING."
)
