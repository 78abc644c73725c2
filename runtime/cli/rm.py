"""`uml rm`: files inside of images and trees, and machines that have ended."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from runtime.inspect.changing import WritableTree


@click.command("rm")
@click.argument("paths", metavar="[SRC[:PART]:PATH | UMID]...", nargs=-1)
@click.option("-r", "--recursive", is_flag=True, help="Directories, with all that is in them.")
@click.option("-f", "--force", is_flag=True, help="What is not there is no error.")
@click.option("--ended", "all_ended", is_flag=True, help="Forget all machines that have ended.")
@click.option("--uml-dir", metavar="DIR", help="Where the directories of machines are.  [~/.uml]")
def command(paths: tuple[str, ...], recursive: bool, force: bool, all_ended: bool, uml_dir: str | None) -> None:
    """Remove files inside of images, humfs trees or machines; or forget machines that have ended, with their logs.

    A word with a colon is a file, one without is a machine.

    \b
    Example:
      uml rm -r disk.img:/var/cache/apt
      uml rm web
    """
    from umlfs.errors import UsageError

    if not paths and not all_ended:
        raise UsageError("nothing to remove", "name files as SRC:PATH, ended machines by their umids, or give --ended")
    files = tuple(word for word in paths if ":" in word)
    machines = tuple(word for word in paths if ":" not in word)
    if files and (machines or all_ended):
        raise UsageError("files and machines at once", "remove one kind at a time")
    if files:
        _remove_files(files, recursive, force)
    else:
        _forget(machines, force, all_ended, uml_dir)


def _remove_files(paths: tuple[str, ...], recursive: bool, force: bool) -> None:
    from runtime.cli.changing import change
    from runtime.inspect import changing

    places = changing.places(paths)

    async def work(tree: WritableTree) -> None:
        for place in places:
            await tree.remove(place.inside, recursive=recursive, force=force)

    change(places, work)


def _forget(umids: tuple[str, ...], force: bool, all_ended: bool, uml_dir: str | None) -> None:
    from runtime.machines import directory, ended
    from umlfs.errors import UmlError

    machines = directory.machines_directory(uml_dir)
    for umid in umids:
        if not ended.remove(machines, _not_running(machines, umid)) and not force:
            raise UmlError(f"{umid}: no such machine has ended", "'uml ps -a' lists those that have")
    if all_ended:
        for each in ended.all_ended(machines):
            ended.remove(machines, each.umid)


def _not_running(machines: Path, umid: str) -> str:
    from runtime.machines import directory
    from umlfs.errors import UmlError, UsageError

    if "/" in umid:
        raise UsageError(f"{umid}: neither SRC:PATH nor the umid of a machine", "files of this host are rm(1)'s")
    if directory.runs(machines / directory.check_umid(umid)):
        raise UmlError(f"{umid}: is running", f"'uml halt {umid}' ends it")
    return umid
