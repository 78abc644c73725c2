"""`uml mount`: any source, at a directory of this host."""

from __future__ import annotations

import json
import sys

import click

from runtime.cli.keys import key_options
from runtime.cli.printing import print_table, printable
from umlfs.errors import UsageError


@click.command("mount")
@click.argument("source", metavar="[SRC", required=False)
@click.argument("mountpoint", metavar="MOUNTPOINT]", required=False)
@click.option("-o", "options", multiple=True, metavar="OPTS", help="Options with commas between; docs/mounting.md.")
@click.option("--foreground", is_flag=True, help="Serve in this process, until Ctrl-C or an unmount.")
@click.option("--json", "as_json", is_flag=True, help="The list of mounts as JSON.")
@key_options
def command(
    source: str | None, mountpoint: str | None, options: tuple[str, ...], foreground: bool, as_json: bool
) -> None:
    """Mount SRC at the directory MOUNTPOINT; without arguments, list what is mounted.

    SRC is a directory, an image, or anything else that umlfs knows (hostfs:DIR, humfs:DIR, raw:FILE, nbd://…).
    Of an image (IMAGE, or IMAGE:N for partition N) the filesystem inside is mounted, read-only unless -o rw says
    otherwise; with its kind (raw:FILE) a disk shows as a directory with the file 'disk' and one for each partition.
    Works without root where /dev/fuse can be opened. Returns when the mount answers; it is served in the background.

    \b
    Example:
      uml mount ./project /mnt/project -o ro
      uml mount disk.img:2 ~/root -o rw
      uml mount raw:disk.img ~/image && fsck.ext4 -n ~/image/part1
      uml mount
    """
    if source is None:
        _list(as_json)
        return
    if as_json:
        raise UsageError("--json: only for the list of mounts", "write 'uml mount --json', or leave it out")
    if mountpoint is None:
        raise UsageError("no mount point named", "write 'uml mount SRC MOUNTPOINT'")
    mount(source, mountpoint, options, foreground)


def mount(source: str, mountpoint: str, words: tuple[str, ...], foreground: bool = False) -> None:
    """Mount, and say on standard error what a person should know."""
    import trio

    from runtime.mounts import mounting as mounts
    from runtime.mounts.options import parse
    from runtime.process import processes

    options = parse(words)
    if foreground:
        mounts.check(source, mountpoint)
        with processes.for_machines():
            trio.run(mounts.serve, source, mountpoint, options, lambda: None)
        return
    for remark in mounts.start(source, mountpoint, options).remarks:
        print(f"uml: {printable(remark)}", file=sys.stderr)


def _list(as_json: bool) -> None:
    from runtime.mounts.mounting import listing

    found = listing()
    if as_json:
        click.echo(json.dumps([line.fields() for line in found], indent=2))
        return
    if not found:
        return
    print_table(
        ["SOURCE", "MOUNTED AT", "PID", "SINCE", "REQUESTS", ""],
        (line.cells() for line in found),
    )
