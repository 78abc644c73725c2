"""`uml humfs`: make, fill, look at and mend filesystems with true ownership in plain files."""

from __future__ import annotations

import json
import os
import stat
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from runtime.cli.path import PATH
from runtime.cli.printing import print_table, printable
from runtime.cli.progress import counter, progress_option

if TYPE_CHECKING:
    from humfs.tools import Info

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for a program to read.")


def warn(line: str) -> None:
    """Say something on standard error that is no failure."""
    click.echo(f"uml: {printable(line)}", err=True)


@click.group("humfs")
def command() -> None:
    """Guest filesystems with true ownership, in plain files of an ordinary user.

    \b
    Example:
      uml humfs create debian --size 4G
      uml humfs import debian debian.tar
      uml run --root humfs:debian -- ls -ln /
    """


@command.command("create")
@click.option("--size", required=True, metavar="SIZE", help="Bytes that the guest may take; K, M, G, T are of 1024.")
@click.option("--owner", default="0:0", metavar="UID:GID", help="Who owns the root, and files put in by hand.")
@click.option("--acl", is_flag=True, help="Let the guest have POSIX access control lists.")
@click.argument("directory", type=PATH)
def create_(directory: Path, size: str, owner: str, acl: bool) -> None:
    """Make a new, empty filesystem in DIRECTORY.

    \b
    Example:
      uml humfs create debian --size 4G
    """
    from humfs.superblock import parse_size
    from humfs.tools import parse_owner
    from humfs.volume import create

    create(directory, parse_size(size), *parse_owner(owner, directory, 0, 0), acl=acl)


@command.command("set")
@click.option("--size", metavar="SIZE", help="Bytes that the guest may take; K, M, G, T are of 1024.")
@click.option("--owner", metavar="UID:GID", help="Who owns files put in by hand.")
@click.option("--acl/--no-acl", default=None, help="Whether the guest has POSIX access control lists.")
@click.argument("directory", type=PATH)
def set_(directory: Path, size: str | None, owner: str | None, acl: bool | None) -> None:
    """Change settings of the filesystem in DIRECTORY, which nobody may have open.

    With lists, a guest asks for one with each file that it sees, so listings take half as long again.

    \b
    Example:
      uml humfs set debian --size 8G --acl
    """
    from humfs.superblock import parse_size
    from humfs.tools import change_settings

    change_settings(directory, parse_size(size) if size else None, owner, acl)


@command.command("import")
@click.argument("directory", type=PATH)
@click.argument("archive")
@progress_option
def import_(directory: Path, archive: str) -> None:
    """Put ARCHIVE into the filesystem in DIRECTORY, over what it has.

    ARCHIVE is a tar file, compressed or not, or - for one on standard input; or a container image, as an OCI layout
    or as `docker save` writes it. Owners, devices and links are those of the archive, whoever runs this.

    \b
    Example:
      uml humfs import debian debian.tar
      mmdebstrap --variant=minbase bookworm - | uml humfs import debian -
    """
    import trio

    from humfs.archive import import_archive

    with counter("import") as progress:

        async def run() -> None:
            await import_archive(directory, archive, warn=warn, progress=progress)

        trio.run(run)


@command.command("export")
@click.argument("directory", type=PATH)
@click.argument("archive")
@progress_option
def export_(directory: Path, archive: str) -> None:
    """Write the filesystem in DIRECTORY as the tar file ARCHIVE, or - for standard output.

    \b
    Example:
      uml humfs export debian debian.tar
      uml humfs export debian - | zstd > debian.tar.zst
    """
    from humfs.archive import export_archive

    with counter("export") as progress:
        export_archive(directory, archive, warn=warn, progress=progress)


@command.command("convert")
@click.option("--to", "metadata", required=True, type=click.Choice(["sqlite", "shadow_fs"]), help="The new format.")
@click.option("--lossy", is_flag=True, help="Give up what shadow_fs cannot hold.")
@click.argument("directory", type=PATH)
@progress_option
def convert_(directory: Path, metadata: str, lossy: bool) -> None:
    """Convert the metadata of DIRECTORY to another format, in place.

    shadow_fs, the format of the historical kernels, has no set-id and sticky bits, no extended attributes, and device
    numbers up to 999: what would be lost is listed, and refused without --lossy.

    \b
    Example:
      uml humfs convert old --to sqlite
    """
    from humfs.legacy import to_shadow, to_sqlite

    with counter("convert") as progress:
        if metadata == "sqlite":
            notes = to_sqlite(directory, progress)
        else:
            notes = to_shadow(directory, lossy=lossy, progress=progress)
    for note in notes:
        warn(note)


@command.command("info")
@as_json
@click.argument("directory", type=PATH)
def info_(directory: Path, as_json: bool) -> None:
    """Say what is known of the filesystem in DIRECTORY, and what was mended in it.

    \b
    Example:
      uml humfs info debian
    """
    from humfs.tools import info

    facts = info(directory)
    if as_json:
        click.echo(json.dumps(asdict(facts), indent=2))
        return
    for line in _lines(facts):
        click.echo(printable(line))


def _lines(facts: Info) -> list[str]:
    lines = [
        f"metadata  {facts.metadata}, version {facts.version}",
        f"used      {facts.used} of {facts.total} bytes ({facts.used * 100 // facts.total}%)",
    ]
    if facts.inodes is not None:
        lines.append(f"inodes    {facts.inodes}, with {facts.names} names")
        lines.append(f"lists     POSIX ACLs are {'on' if facts.posix_acl else 'off'}")
        lines.append(f"default   owner {facts.default_uid}:{facts.default_gid} for files put in by hand")
    if facts.holder is not None:
        lines.append(f"state     in use by process {facts.holder}")
    elif facts.clean is not None:
        lines.append(f"state     {'clean' if facts.clean else 'not closed in order: compared at the next use'}")
    if facts.importing and facts.holder is None:
        lines.append("import    was broken off; import again what it should hold")
    return lines + [f"mended    {line}" for line in facts.repairs]


@command.command("query")
@as_json
@click.argument("directory", type=PATH)
@click.argument("question", metavar="[TABLE|SQL]", required=False)
def query_(directory: Path, question: str | None, as_json: bool) -> None:
    """Ask the metadata: without TABLE or SQL what tables there are, else their rows. Nothing is ever changed.

    Of a filesystem in use the answer is what was committed so far.

    \b
    Example:
      uml humfs query debian
      uml humfs query debian meta
      uml humfs query --json debian 'SELECT uid, count(*) AS files FROM inode GROUP BY uid'
    """
    from humfs.query import query, tables

    if question is None:
        rows = [
            {"table": each.name, "rows": each.rows, "columns": " ".join(each.columns)} for each in tables(directory)
        ]
    else:
        rows = query(directory, question)
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    elif rows:
        print_table([name.upper() for name in rows[0]], [[_cell(value) for value in row.values()] for row in rows])


def _cell(value: object) -> str:
    return "" if value is None else str(value)


@command.command("check")
@click.option("--repair", is_flag=True, help="Mend what is found.")
@as_json
@click.argument("directory", type=PATH)
@progress_option
def check_(directory: Path, repair: bool, as_json: bool) -> int:
    """Compare files and metadata of the filesystem in DIRECTORY, which nobody may have open.

    One line for each difference. The exit status is 0 if there was none or all were mended, else 1.

    \b
    Example:
      uml humfs check debian
      uml humfs check --repair debian
    """
    from humfs.check import check

    with counter("check", "names") as progress:
        findings = check(directory, repair=repair, progress=progress)
    if as_json:
        shown = [{"path": one.path, "kind": one.kind.name.lower(), "what": str(one)} for one in findings]
        click.echo(json.dumps({"findings": shown, "repaired": repair}, indent=2))
    else:
        for finding in findings:
            click.echo(printable(str(finding)))
    return 1 if findings and not repair else 0


@command.command("chown")
@click.argument("path", type=PATH)
@click.argument("owner")
def chown_(path: Path, owner: str) -> None:
    """Give the file PATH, below data/ of a filesystem that nobody has open, to OWNER in the guest.

    OWNER is USER, USER:GROUP or :GROUP, in numbers or names that the guest has.

    \b
    Example:
      uml humfs chown debian/data/srv/www www-data:www-data
    """
    from humfs.tools import change_owner

    change_owner(path, owner)


@command.command("stat")
@as_json
@click.argument("path", type=PATH)
def stat_(path: Path, as_json: bool) -> None:
    """Show the metadata that the file PATH, below data/ of a filesystem, has in the guest.

    \b
    Example:
      uml humfs stat debian/data/etc/shadow
    """
    from humfs.store import COLUMNS
    from humfs.tools import read_stat

    row, xattrs = read_stat(path)
    facts = dict(zip(COLUMNS, row, strict=True))
    values = {os.fsdecode(name).encode("utf-8", "backslashreplace").decode(): value.hex() for name, value in xattrs}
    if as_json:
        click.echo(json.dumps({**facts, "xattrs": values}, indent=2))
        return
    click.echo(f"inode {row[0]}  links {row[5]}  size {row[6]}")
    click.echo(f"{stat.filemode(row[1])}  {row[2]}:{row[3]}{_device(row[1], row[4])}")
    for word, at in zip(("accessed", "modified", "changed"), row[8:11], strict=True):
        click.echo(f"{word:<8}  {time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(at // 10**9))}.{at % 10**9:09d} UTC")
    for name, value in values.items():
        click.echo(f"{printable(name)}  {value}")


def _device(mode: int, rdev: int) -> str:
    special = stat.S_ISCHR(mode) or stat.S_ISBLK(mode)
    return f"  device {os.major(rdev)}, {os.minor(rdev)}" if special else ""
