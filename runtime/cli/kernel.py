"""`uml kernel`: the kernels that guests are booted from."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from runtime.cli.printing import printable
from runtime.cli.progress import progress_bar, progress_option

if TYPE_CHECKING:
    from runtime.kernels.store import StoredKernel

json_option = click.option("--json", "as_json", is_flag=True, help="For programs.")


def say(line: str) -> None:
    """Tell a person at a terminal what goes on."""
    if sys.stderr.isatty():
        click.echo(f"uml: {printable(line)}", err=True)


@click.group("kernel")
def command() -> None:
    """Kernels for guests: get them, choose one, tell what they can do.

    A kernel's name is taken wherever --kernel is. Without a choice the newest is taken, the distribution's own
    (`system`) included.

    \b
    Example:
      uml kernel install             the newest that Debian has
      uml kernel install trixie
      uml kernel build --flavour smp
      uml kernel list
      uml run --kernel 6.12 -- uname -r
      uml kernel use system
    """


@command.command("list")
@json_option
def list_(as_json: bool) -> None:
    """Show the kernels that there are; the one with a star is taken by default.

    \b
    Example:
      uml kernel list
    """
    from runtime.kernels.listing import rows, table

    if as_json:
        import json

        click.echo(json.dumps([asdict(row) for row in rows()], indent=2))
    else:
        click.echo(table(rows()), nl=False)


@command.command("install")
@click.option("--name", metavar="NAME", help="What to call it.  [its version]")
@click.option("--mirror", metavar="URL", help="Where to fetch it.  [the Debian mirror that this host's apt uses]")
@click.option("--keyring", metavar="FILE", help="The keys that sign what is there.  [Debian's]")
@click.argument("wanted", required=False, metavar="[SUITE|VERSION]")
def install_(wanted: str | None, name: str | None, mirror: str | None, keyring: str | None) -> None:
    """Fetch Debian's user-mode-linux of another suite, without root: by default the newest, of testing.

    apt fetches and checks it; nothing is installed, and the host's own apt is left alone. An interrupted download goes
    on where it was.

    \b
    Example:
      uml kernel install
      uml kernel install trixie
      uml kernel install 6.12
    """
    from runtime.command.trial import try_kernel
    from runtime.kernels.install import install

    entry, was_there = install(wanted, name=name, mirror=mirror, keyring=keyring, trial=try_kernel, say=say)
    _tell(entry, "is there already" if was_there else "installed")


def _tell(entry: StoredKernel, what: str) -> None:
    """Say what there is now, and what it lacks that the distribution's has."""
    from runtime.kernels.listing import lacks

    click.echo(f"{entry.name}: {what}, {entry.about.size / 1e6:.0f} MB in {entry.path}")
    for line in lacks(entry):
        click.echo(line)


@command.command("build")
@click.option("--source", metavar="PACKAGE|DIR|TARBALL", help="Of what.  [the newest linux-source-* of Debian testing]")
@click.option(
    "--flavour",
    "flavours",
    multiple=True,
    metavar="NAME",
    help="fast, or on top of that smp, debug, time-travel, gcov.  [fast]",
)
@click.option("--set", "settings", multiple=True, metavar="CONFIG_X=y", help="Set an option of its configuration.")
@click.option("--edit", is_flag=True, help="Change the configuration in the terminal (menuconfig) before it is built.")
@click.option("--name", metavar="NAME", help="What to call it.  [its version]")
@click.option("--mirror", metavar="URL", help="Where to fetch the package.  [as for install]")
@click.option("--keyring", metavar="FILE", help="The keys that sign what is there.  [Debian's]")
@click.option("--jobs", type=click.IntRange(1), metavar="N", help="How much at a time.  [one for each processor]")
@click.option("--dry-run", is_flag=True, help="Show the commands, and run none of them.")
@progress_option
def build_(
    source: str | None,
    flavours: tuple[str, ...],
    settings: tuple[str, ...],
    edit: bool,
    name: str | None,
    mirror: str | None,
    keyring: str | None,
    jobs: int | None,
    dry_run: bool,
) -> None:
    """Build a kernel from its source, without root: some minutes, and 4 GB in the cache directory.

    The same build goes on where it was broken off, and a changed one compiles what has changed.

    \b
    Example:
      uml kernel build
      uml kernel build --flavour smp --source linux-source-7.2
      uml kernel build --source ~/src/linux --set CONFIG_KASAN=y --flavour debug
    """
    from pathlib import Path

    from runtime.command.trial import try_kernel
    from runtime.kernels import build, source_tree
    from runtime.kernels.flavours import BASE, wanted

    chosen = tuple(dict.fromkeys(flavours)) or (BASE,)
    wanted(chosen, settings)
    extra = {} if jobs is None else {"jobs": jobs}
    if dry_run:
        tree = Path(source or "linux-source").absolute()
        click.echo("\n".join(build.dry_run(build.Plan(tree, chosen, settings, name, **extra), edit=edit)))
        return
    build.check_host()
    tree = source_tree.source_tree(source, mirror=mirror, keyring=keyring, say=say)
    with progress_bar("compiling", "files") as progress:
        plan = build.Plan(tree, chosen, settings, name, **extra)
        entry = build.build(plan, edit=edit, trial=try_kernel, say=say, progress=progress)
    _tell(entry, "built")


@command.command("info")
@json_option
@click.argument("name", required=False)
def info(name: str | None, as_json: bool) -> None:
    """Tell what is known of a kernel: a NAME or a file; by default the one that is taken by default.

    \b
    Example:
      uml kernel info 7.2
    """
    from runtime.kernels.kernel import find_kernel
    from runtime.kernels.listing import describe

    found = describe(find_kernel(name))
    if as_json:
        import json

        click.echo(json.dumps(found, indent=2))
        return
    width = max(map(len, found))
    for key, value in found.items():
        shown = ", ".join(value) if isinstance(value, list) else value
        click.echo(printable(f"{key:<{width}}  {shown}"))


@command.command("use")
@click.option("--newest", is_flag=True, help="The newest there is, also of those that come later.")
@click.argument("name", required=False)
def use(name: str | None, newest: bool) -> None:
    """Make the kernel NAME the one that is taken by default; `system` is the distribution's own.

    \b
    Example:
      uml kernel use 6.12
      uml kernel use --newest
    """
    from runtime.kernels.listing import lacks
    from runtime.kernels.store import SYSTEM, choose, find
    from umlfs.errors import UmlError, UsageError

    if (name is None) != newest:
        raise UsageError("a kernel's name or --newest is wanted, and not both", "'uml kernel list' shows the names")
    entry = None if name in (None, SYSTEM) else find(str(name))
    if name not in (None, SYSTEM) and entry is None:
        raise UmlError(f"{name}: no such kernel", "'uml kernel list' shows those that there are")
    choose(entry.name if entry is not None else name)
    for line in lacks(entry) if entry is not None else []:
        click.echo(line)


@command.command("remove")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
def remove(names: tuple[str, ...]) -> None:
    """Remove kernels.

    \b
    Example:
      uml kernel remove 6.12.113
    """
    from runtime.kernels import store

    for name in names:
        store.remove(name)
