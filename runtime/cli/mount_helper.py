"""`mount.fuse.umlfs`: what mount(8) runs for `mount -t fuse.umlfs SRC DIR` and for lines of fstab."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import click

from runtime.cli import open_standard_descriptors
from runtime.cli.failure import report
from runtime.cli.mount import mount


@click.command("mount.fuse.umlfs")
@click.argument("source", metavar="SRC")
@click.argument("mountpoint", metavar="DIR")
@click.option("-o", "options", multiple=True, metavar="OPTS", help="Options with commas between.")
@click.option("-t", "kind", metavar="TYPE", help="The type, which is always fuse.umlfs.")
@click.option("-f", "fake", is_flag=True, help="Do all but mount.")
@click.option("-n", "-s", "-v", "ignored", is_flag=True, help="For mount(8); no effect.")
def command(
    source: str, mountpoint: str, options: tuple[str, ...], kind: str | None, fake: bool, ignored: bool
) -> None:
    """Mount SRC at DIR, as mount(8) asks its helpers to."""
    from runtime.mounts.options import split
    from runtime.mounts.remount import REMOUNT, remount

    words = [word for text in options for word in split(text)]
    if fake:
        return
    if REMOUNT in words:
        remount(mountpoint, words)
        return
    mount(source, mountpoint, (*_defaults(words), *options))


def _defaults(words: list[str]) -> list[str]:
    """What mount(8) leaves out as it is the default of root's mounts, and is none of FUSE."""
    if os.geteuid():
        return []
    return [word for word in ("suid", "dev") if f"no{word}" not in words]


def main() -> NoReturn:
    """The entry point of the `mount.fuse.umlfs` program."""
    open_standard_descriptors()
    try:
        command.main(sys.argv[1:], standalone_mode=False)
    except (Exception, KeyboardInterrupt) as error:
        sys.exit(report(error, debug=False))
    sys.exit(0)
