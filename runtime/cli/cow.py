"""`uml cow`: make, merge, look at and mend COW files."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from runtime.cli.picture import picture_options, show_map
from runtime.cli.printing import printable
from runtime.cli.progress import progress_bar, progress_option
from umlfs.errors import UmlError, UsageError

if TYPE_CHECKING:
    from umlfs.cow.info import Info

FILE = click.Path(readable=False)
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for a program to read.")


@click.group("cow")
def command() -> None:
    """COW files: what a guest changed of a backing file that many share.

    \b
    Example:
      uml cow create guest.cow debian.img
      uml cow info guest.cow
      uml cow merge guest.cow new.img
    """


@command.command("create")
@click.option("-f", "--force", is_flag=True, help="Replace a COW file that is there, and all changes in it.")
@click.argument("cow", type=FILE)
@click.argument("backing", type=FILE)
def create_(cow: str, backing: str, force: bool) -> None:
    """Make a COW file without changes over BACKING: a raw image, one that qemu reads, or the disk of an NBD server.

    \b
    Example:
      uml cow create guest.cow debian.img
      uml cow create guest.cow nbd://server/debian
    """
    import trio

    from umlfs.cow.open import create_over

    try:
        trio.run(partial(create_over, cow, backing, force=force))
    except FileExistsError as error:
        raise UmlError(f"{cow}: exists", "name another, or --force to lose all changes in it") from error


@command.command("merge")
@click.option("-b", "--backing", type=FILE, help="Where the backing file is, if not where the COW file says.")
@click.option("-d", "--in-place", is_flag=True, help="Write into the backing file, and empty the COW file.")
@click.option("-f", "--force", is_flag=True, help="Replace NEW if it is there.")
@click.argument("cow", type=FILE)
@click.argument("new", type=FILE, required=False)
@progress_option
def merge_(cow: str, new: str | None, backing: str | None, in_place: bool, force: bool) -> None:
    """Merge a COW file with its backing file, into the file NEW or in place.

    NEW appears when it is complete, with --force in the place of what is there; a block device is written to. A merge
    in place makes every other COW file over that backing file worthless; interrupted, it is gone on with by the same
    command.

    \b
    Example:
      uml cow merge guest.cow new.img
      uml cow merge --in-place guest.cow
    """
    from umlfs.cow.merge import merge, merge_in_place

    if in_place == (new is not None):
        raise UsageError("cow merge: give either NEW or --in-place", "see 'uml cow merge --help'")
    with progress_bar(cow) as progress:
        if new is None:
            merge_in_place(cow, backing=backing, progress=progress)
            return
        try:
            merge(cow, new, backing=backing, replace=force, progress=progress)
        except FileExistsError as error:
            raise UmlError(f"{new}: exists", "name another, or --force to replace it") from error


@command.command("info")
@as_json
@click.argument("cow", type=FILE)
def info_(cow: str, as_json: bool) -> None:
    """Show what a COW file is over, whether that still holds, and how much it changes.

    \b
    Example:
      uml cow info guest.cow
      uml cow info --json guest.cow | jq .valid
    """
    from umlfs.cow.info import info

    found = info(cow)
    if as_json:
        click.echo(json.dumps({**asdict(found), "valid": found.valid}, indent=2))
        return
    for name, value in _describe(found):
        click.echo(f"{name:<9} {printable(value)}")


def _describe(found: Info) -> list[tuple[str, str]]:
    used = {None: "no", -1: "yes"}.get(found.in_use_by, f"yes, by process {found.in_use_by}")
    return [
        ("file", found.path),
        ("version", f"{found.version}, alignment {found.alignment}, data at {found.data_offset}"),
        ("backing", found.backing),
        ("size", _pair(found.size, found.size_found, " bytes")),
        ("mtime", _pair(found.mtime, found.mtime_found, "")),
        ("valid", "yes" if found.valid else f"no: {found.problem}"),
        ("changed", f"{found.sectors_changed} of {found.sectors} sectors"),
        ("on disk", f"{found.allocated} bytes"),
        ("in use", used),
    ]


def _pair(stored: int, found: int | None, unit: str) -> str:
    if found is None:
        return f"{stored}{unit}"
    return f"{stored}{unit}" if stored == found else f"{stored}{unit}, but the backing file has {found}"


@command.command("map")
@picture_options
@as_json
@click.argument("cow", type=FILE)
def map_(cow: str, png: str | None, svg: str | None, as_json: bool) -> None:
    """List the ranges that a COW file holds: offset, length, and 'data' or 'zero'.

    --png and --svg draw it, with what it lies over, a colour for each file (see 'uml image map').

    \b
    Example:
      uml cow map guest.cow
      uml cow map --svg guest.svg guest.cow
    """
    from umlfs.cow.info import present

    if png is not None or svg is not None:
        from runtime.images.formats import Format, Image

        show_map(Image(Path(cow), Format.COW), png, svg, as_json=as_json)
        return
    ranges = present(cow)
    if as_json:
        click.echo(json.dumps([{"offset": r.offset, "length": r.length, "kind": r.kind.value} for r in ranges]))
        return
    for each in ranges:
        click.echo(f"{each.offset:>16} {each.length:>16} {each.kind.value}")


@command.command("check")
@click.option("--repair", is_flag=True, help="Mend what can be mended without losing anything.")
@as_json
@click.argument("cow", type=FILE)
def check_(cow: str, repair: bool, as_json: bool) -> int:
    """Check a COW file. The exit status is 1 if there is an error that was not mended.

    \b
    Example:
      uml cow check --repair guest.cow
    """
    from umlfs.cow.check import Severity, check, worst

    findings = check(cow, repair=repair)
    failed = worst(findings) is Severity.ERROR
    if as_json:
        listed = [{**asdict(each), "severity": each.severity.value} for each in findings]
        click.echo(json.dumps({"ok": not failed, "findings": listed}, indent=2))
    else:
        for each in findings:
            click.echo(f"{each.severity.value:<8} {printable(each.text)}{' (repaired)' if each.repaired else ''}")
    return int(failed)


@command.command("rebase")
@click.option("--force-mtime", is_flag=True, help="Take PATH whatever its mtime; its contents must be the same.")
@click.argument("cow", type=FILE)
@click.argument("path", type=FILE)
def rebase_(cow: str, path: str, force_mtime: bool) -> None:
    """Let a COW file name PATH: its backing file, moved. An old format becomes V3.

    Size and mtime must be those that the backing file had. With --force-mtime only the size: every sector that the
    COW file does not hold is then read from PATH, and if that is not what the COW file was made over, the
    filesystem in it is destroyed with the first use.

    \b
    Example:
      uml cow rebase guest.cow /srv/images/debian.img
    """
    from umlfs.cow.rebase import rebase

    rebase(cow, path, force_mtime=force_mtime)
    if force_mtime:
        click.echo(f"all that {printable(shlex.quote(cow))} does not hold is now read from {printable(path)}", err=True)


@command.command("diff")
@as_json
@click.argument("a")
@click.argument("b")
@progress_option
def diff_(a: str, b: str, as_json: bool) -> int:
    """List the ranges (offset, length) in which two images differ; any two sources, COW files or not.

    The exit status is 0 if they are the same, 1 if they differ.

    \b
    Example:
      uml cow diff before.cow after.cow
      uml cow diff guest.cow debian.img
    """
    return show_differences(a, b, as_json=as_json)


def show_differences(a: str, b: str, *, as_json: bool) -> int:
    """Print where two disks differ; the exit status. UmlError, UsageError."""
    import trio

    ranges = trio.run(_differences, a, b)
    if as_json:
        click.echo(json.dumps([{"offset": offset, "length": length} for offset, length in ranges]))
    else:
        for offset, length in ranges:
            click.echo(f"{offset:>16} {length:>16}")
    return int(bool(ranges))


async def _differences(a: str, b: str) -> list[tuple[int, int]]:
    from runtime.images.layers import different

    with progress_bar(a) as progress:
        return await different(a, b, progress)
