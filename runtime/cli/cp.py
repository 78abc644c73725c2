"""`uml cp`: files into and out of images and trees."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from runtime.cli.keys import key_options
from runtime.cli.printing import printable
from runtime.cli.progress import activity, progress_option
from runtime.cli.trees import run
from umlfs.errors import UsageError

if TYPE_CHECKING:
    from runtime.inspect.attribute_copy import CopyReport


@click.command("cp")
@click.argument("sources", metavar="FROM...", nargs=-1, required=True)
@click.argument("target", metavar="TO")
@click.option("-r", "--recursive", is_flag=True, help="Directories, with all that is in them.")
@click.option("-f", "--force", is_flag=True, help="Replace files that are there.")
@click.option("--owner", metavar="UID:GID", help="Whom the copies belong to.  [whom the originals do]")
@click.option("--strict", is_flag=True, help="What TO cannot keep is an error, not a line.")
@progress_option
@key_options
def command(
    sources: tuple[str, ...], target: str, recursive: bool, force: bool, owner: str | None, strict: bool
) -> int:
    """Copy files between this host and the inside of images and trees, or from one to another.

    FROM and TO are SRC:PATH or SRC:PART:PATH, or else paths of this host. Owners, modes, times, links, holes, access
    lists and other extended attributes are kept where TO can keep them; what it cannot keep is told. What cannot be
    made there (devices for an ordinary user, names that FAT has not) is left out and told.

    \b
    Example:
      uml cp disk.img:/etc/fstab .
      uml cp -r disk.img:2:/home backup
      uml cp --owner 0:0 sshd_config disk.img:/etc/ssh/
    """
    from runtime.inspect.copying import copy

    belongs_to = _owner(owner)
    with activity("copy", after=1.0) as show:

        def tell(report: CopyReport) -> None:
            show.text(f"{report.copied} files, {report.size >> 20} MiB")

        report = run(lambda: copy(sources, target, recursive=recursive, replace=force, owner=belongs_to, progress=tell))
    for line in report.skipped:
        print(f"uml: {printable(line)}: left out", file=sys.stderr)
    if report.owners_lost:
        print(f"uml: owners are lost: {target} cannot keep those of {report.owners_lost} files", file=sys.stderr)
    for name, count in sorted(report.attributes_lost.items()):
        print(f"uml: attributes are lost: {target} does not take '{printable(name)}' of {count} files", file=sys.stderr)
    lost = report.owners_lost or report.attributes_lost
    return 1 if report.skipped or (strict and lost) else 0


def _owner(word: str | None) -> tuple[int, int] | None:
    if word is None:
        return None
    uid, colon, gid = word.partition(":")
    if not (colon and uid.isdigit() and gid.isdigit()):
        raise UsageError(f"--owner {word}: not of the form UID:GID", "for example --owner 0:0")
    return int(uid), int(gid)
