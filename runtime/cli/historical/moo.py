"""uml_moo: merge a COW file with its backing file."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from runtime.cli.historical.frame import WrongUsage, complain, parse, why
from runtime.cli.progress import progress_bar
from umlfs.cow.backing import Backing, look_at
from umlfs.cow.file import header_at
from umlfs.cow.header import Header
from umlfs.cow.merge import merge, merge_in_place
from umlfs.errors import UmlError

USAGE = """\
uml_moo usage:
\tuml_moo [ -b <actual backing file> ] <COW file> <new backing file>
\tuml_moo [ -b <actual backing file> ] -d <COW file>
Creates a new filesystem image from the COW file and its backing file.
Specifying -d will cause a destructive, in-place merge of the COW file into
its current backing file
Specifying -b overrides the backing_file specified in the COW file.  This is
needed when dealing with a COW file that was created inside a chroot jail.
uml_moo supports version 1,2 and 3 COW files.
"""
WRONG_USAGE = 1


@click.command("uml_moo", context_settings={"allow_interspersed_args": False}, add_help_option=False)
@click.option("-b", "backing")
@click.option("-d", "in_place", is_flag=True)
@click.argument("files", nargs=-1)
def _command(backing: str | None, in_place: bool, files: tuple[str, ...]) -> None:
    pass


def run(arguments: Sequence[str]) -> int:
    """Do what the arguments say; gives the exit status."""
    try:
        given = parse(_command, arguments)
        files: tuple[str, ...] = given["files"]
        if len(files) != (1 if given["in_place"] else 2):
            raise WrongUsage
    except WrongUsage:
        sys.stderr.write(USAGE)
        return WRONG_USAGE
    return _merge(files[0], given["backing"], None if given["in_place"] else files[1])


def _merge(cow: str, given: str | None, new: str | None) -> int:
    """Merge into `new`, or in place where that is None."""
    try:
        header = header_at(cow)
    except OSError as error:
        return complain(f"COW file open: {why(error)}")
    except UmlError:
        return complain("Reading COW header failed")
    if header.broken:
        print("read_cow_header - broken V3 file with 64-bit layout - recovering content.")
    try:
        backing = look_at(os.fsdecode(header.backing) if given is None else given)
    except (OSError, UmlError) as error:
        return complain(f"Stating backing file: {why(error)}")
    if (header.merging is None or new is not None) and (mismatch := _mismatch(header, backing)):
        return complain(mismatch)
    return _write(cow, given, new)


def _mismatch(header: Header, backing: Backing) -> str | None:
    if header.size != backing.size:
        word, stored, found = "Size", header.size, backing.size
    elif header.mtime != backing.mtime:
        word, stored, found = "mtime", header.mtime, backing.mtime
    else:
        return None
    return f'{word} mismatch ({stored} vs {found}) of COW header vs backing file "{backing.path}"'


def _write(cow: str, backing: str | None, new: str | None) -> int:
    try:
        with progress_bar(cow) as progress:
            if new is None:
                merge_in_place(cow, backing=backing, progress=progress)
            else:
                merge(cow, new, backing=backing, progress=progress)
    except OSError as error:
        return complain(f"Output file open: {why(error)}" if error.filename == new else f"uml_moo: {error}")
    except UmlError as error:
        return complain(f"uml_moo: {error}")
    return 0


def main() -> NoReturn:
    """The entry point of the program."""
    sys.exit(run(sys.argv[1:]))
