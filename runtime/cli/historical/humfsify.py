"""humfsify: a tree with true ownership becomes a humfs in place, or a humfs a plain tree again."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import click

from runtime.cli.historical.frame import WrongUsage, complain, parse, why
from umlfs.errors import UmlError

USAGE = "Usage: {} user group size\n"
_NUMBER_MAX = (1 << 32) - 1


@click.command("humfsify", context_settings={"allow_interspersed_args": False}, add_help_option=False)
@click.option("-r", "reverse", is_flag=True)
@click.argument("owner_and_size", nargs=-1)
def _command(reverse: bool, owner_and_size: tuple[str, ...]) -> None:
    pass


def run(arguments: Sequence[str]) -> int:
    """Do what the arguments say, in the current directory; gives the exit status."""
    try:
        given = parse(_command, arguments)
        owner_and_size: tuple[str, ...] = given["owner_and_size"]
        if len(owner_and_size) != (0 if given["reverse"] else 3):
            raise WrongUsage
    except WrongUsage:
        sys.stderr.write(USAGE.format(os.path.basename(sys.argv[0]) or "humfsify"))
        return 1
    try:
        return _restore() if given["reverse"] else _convert(*owner_and_size)
    except UmlError as error:
        return complain(why(error))
    except OSError as error:
        return complain(f"{error.filename or 'humfsify'}: {why(error)}")


def _convert(user: str, group: str, size: str) -> int:
    from humfs.humfsify import humfsify
    from humfs.superblock import parse_size
    from runtime.cli.progress import counter

    uid = _uid(user)
    if uid is None:
        return complain(f"User '{user}' not present in the password file")
    gid = _gid(group)
    if gid is None:
        return complain(f"Group '{group}' not present in the groups file")
    try:
        total = parse_size(size)
    except UmlError as error:
        return complain(error.what)
    with counter("humfsify") as progress:
        humfsify(Path("."), uid, gid, total, progress)
    return 0


def _restore() -> int:
    from humfs.humfsify import restore
    from runtime.cli.progress import counter

    with counter("humfsify -r") as progress:
        restore(Path("."), progress)
    return 0


def _number(word: str) -> int | None:
    """A number that can be an id."""
    return int(word) if word.isascii() and word.isdecimal() and int(word) < _NUMBER_MAX else None


def _uid(word: str) -> int | None:
    import pwd

    try:
        return pwd.getpwnam(word).pw_uid
    except (KeyError, ValueError):
        return _number(word)


def _gid(word: str) -> int | None:
    import grp

    try:
        return grp.getgrnam(word).gr_gid
    except (KeyError, ValueError):
        return _number(word)


def main() -> NoReturn:
    """The entry point of the program."""
    sys.exit(run(sys.argv[1:]))
