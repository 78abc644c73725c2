"""uml_mkcow: make a COW file."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from runtime.cli.historical.frame import WrongUsage, complain, parse, why
from umlfs.cow.backing import absolute
from umlfs.cow.create import create
from umlfs.errors import UmlError

USAGE = """\
uml_mkcow usage: 
\tuml_mkcow [-f] <COW file> <backing file>
\t-f forces overwrite of an existing COW file
"""  # noqa: W291 - the space is historical
WRONG_USAGE = 2

# An unknown option is the name of a file, as it always was, and so is a -f that is not the first argument.
_FREE = {"ignore_unknown_options": True, "allow_interspersed_args": False}


@click.command("uml_mkcow", context_settings=_FREE, add_help_option=False)
@click.option("-f", "force", is_flag=True)
@click.argument("files", nargs=-1)
def _command(force: bool, files: tuple[str, ...]) -> None:
    pass


def run(arguments: Sequence[str]) -> int:
    """Do what the arguments say; gives the exit status."""
    try:
        given = parse(_command, arguments)
        files: tuple[str, ...] = given["files"]
        if len(files) < 2:
            raise WrongUsage
    except WrongUsage:
        sys.stderr.write(USAGE)
        return WRONG_USAGE
    return _make(files[0], files[1], given["force"])


def _make(cow: str, backing: str, force: bool) -> int:
    try:
        create(cow, backing, force=force)
    except FileNotFoundError as error:
        if os.path.isdir(os.path.dirname(cow) or "."):
            full = os.fsdecode(absolute(backing))
            print(f"write_cow_header - backing file '{full}' mtime request failed, err = 1")
            return complain("write_cow_header: Operation not permitted")
        return complain(f"open COW file: {why(error)}")
    except OSError as error:
        return complain(f"open COW file: {why(error)}")
    except UmlError as error:
        return complain(f"uml_mkcow: {error}")
    return 0


def main() -> NoReturn:
    """The entry point of the program."""
    sys.exit(run(sys.argv[1:]))
