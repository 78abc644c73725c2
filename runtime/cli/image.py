"""`uml image`: build and convert images of guests' filesystems, look after them, and tell what is in them."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, TextIO

import click

from runtime.cli.keys import key_options
from runtime.cli.picture import picture_options, show_map
from runtime.cli.printing import printable
from runtime.cli.progress import activity, progress_option
from runtime.cli.trees import as_json, run, show, show_json

if TYPE_CHECKING:
    from runtime.images.formats import Image

FORMATS = (
    *("raw", "ext4", "xfs", "btrfs", "squashfs", "erofs", "qcow2", "vmdk", "vdi", "vpc", "vhdx", "qed", "parallels"),
    *("humfs", "dir", "tar", "oci"),
)
"""What can be made. Spelled out: the library that knows takes time to import."""
force_option = click.option("--force", is_flag=True, help="Replace an image that is there, once the new one is whole.")


def warn(line: str) -> None:
    """Say something on standard error that is no failure."""
    click.echo(f"uml: {printable(line)}", err=True)


@click.group("image")
def command() -> None:
    """Images of guests' filesystems: build them, convert them, change their size, tell what is in them.

    \b
    Example:
      uml image build debian.img --suite bookworm
      uml image convert debian.img debian.tar.zst
      uml image resize debian.img 8G
      uml image info debian.img
    """


@command.command("build")
@click.option("--suite", metavar="SUITE", help="Of Debian: bookworm, trixie, ...")
@click.option("--from", "recipe_file", metavar="RECIPE.toml", help="Make it as this file says.")
@click.option("--no-cache", is_flag=True, help="Take none of the steps of RECIPE.toml that are kept from before.")
@click.option("--include", "packages", metavar="PKG,...", multiple=True, help="Further packages.")
@click.option("--size", metavar="SIZE", help="Of the new filesystem; 2G by default.")
@click.option("--format", "name", type=click.Choice(FORMATS), help="What to make; by default as the name of OUT ends.")
@click.option("--hostname", default="uml", show_default=True, metavar="NAME", help="The machine's name.")
@click.option("--root-password", "password", metavar="TEXT", help="Root's password: '' for none, - to read a line.")
@click.option("--ssh-key", "key", type=click.File("r"), metavar="FILE", help="A public key that may log in as root.")
@click.option("--mirror", "mirrors", multiple=True, metavar="URL", help="By default those that this host's apt uses.")
@click.option("--kernel", metavar="FILE|NAME", help="Whose modules go into the image; by default the one installed.")
@click.option("--no-modules", is_flag=True, help="Leave out the kernel's modules.")
@force_option
@click.argument("out", metavar="OUT")
@progress_option
def build_(
    out: str,
    suite: str | None,
    recipe_file: str | None,
    no_cache: bool,
    packages: tuple[str, ...],
    size: str | None,
    name: str | None,
    hostname: str,
    password: str | None,
    key: TextIO | None,
    mirrors: tuple[str, ...],
    kernel: str | None,
    no_modules: bool,
    force: bool,
) -> None:
    """Make the image OUT with a Debian that boots in User-mode Linux to a login, or as a recipe says.

    mmdebstrap puts it together, for an ordinary user too. A recipe names a suite or any other base (an archive, an
    image, docker://NAME), packages, files, users, and commands, which are run in a guest; each step is kept, and only
    done again when something before it has changed. With SOURCE_DATE_EPOCH in the environment two builds from the
    same packages are the same, bit for bit.

    \b
    Example:
      uml image build debian.img --suite bookworm --root-password ''
      uml image build humfs:server --suite trixie --include nginx,curl --ssh-key ~/.ssh/id_ed25519.pub
      uml image build web.img --from web.toml
    """
    from humfs.superblock import parse_size
    from runtime.images import convert, formats, recipe
    from runtime.images.build import build as make
    from runtime.kernels.kernel import find_kernel

    made = formats.destination(out, formats.Format(name) if name else None)
    if (suite is None) == (recipe_file is None):
        raise click.UsageError("give either --suite or --from")
    if recipe_file is not None:
        if packages or password is not None or key is not None or mirrors:
            raise click.UsageError("with --from, the recipe names packages, mirrors, passwords and keys")
        _build_from(recipe_file, made, parse_size(size) if size else None, force, kernel, no_modules, no_cache)
        return
    assert suite is not None
    if password == "-":
        password = sys.stdin.readline().rstrip("\n")
    if password is None and key is None:
        warn("nobody can log in: there is neither --root-password nor --ssh-key")
    epoch = _epoch()
    wanted = recipe.Recipe(
        suite,
        include=tuple(word for text in packages for word in text.replace(",", " ").split()),
        hostname=hostname,
        root_password=password,
        ssh_key=key.read() if key else None,
        mirrors=mirrors,
        modules=None if no_modules else find_kernel(kernel).modules,
        epoch=epoch,
    )
    with activity("build") as show:
        writing = convert.Writing(force, parse_size(size) if size else None, epoch, warn=warn, progress=show.count)
        run(lambda: make(made, wanted, writing, show.text))


def _build_from(
    recipe_file: str, made: Image, size: int | None, force: bool, kernel: str | None, no_modules: bool, no_cache: bool
) -> None:
    from pathlib import Path

    from runtime.images import convert
    from runtime.images.recipes import description
    from runtime.images.recipes.building import build_by_recipe
    from runtime.kernels.kernel import find_kernel
    from runtime.process import processes

    about = description.read(Path(recipe_file))
    modules = find_kernel(kernel).modules if about.suite and not no_modules else None
    with activity("build") as show, processes.for_machines():
        writing = convert.Writing(force, size, _epoch(), warn=warn, progress=show.count)
        run(lambda: build_by_recipe(made, about, writing, show.text, modules=modules, use_kept=not no_cache))


@command.command("convert")
@click.option("--format", "name", type=click.Choice(FORMATS), help="What to make; by default as the name of DST ends.")
@click.option("--size", metavar="SIZE", help="Of the new filesystem; by default what the files need, and a fifth more.")
@click.option("--strict", is_flag=True, help="What DST cannot carry is an error, not a line.")
@force_option
@key_options
@click.argument("source", metavar="SRC")
@click.argument("destination", metavar="DST")
@progress_option
def convert_(source: str, destination: str, name: str | None, size: str | None, force: bool, strict: bool) -> None:
    """Make the image DST with the contents of SRC, which stays as it is.

    Both are a raw image or one of qemu's formats, a humfs directory, a plain directory, a tar archive (.gz, .bz2, .xz,
    .zst) or an OCI layout. SRC may besides be a COW file, what `docker save` writes, an archive that libarchive reads
    (zip, cpio, 7z), any of these compressed, or - for standard input; a partition of a disk, IMAGE:N, and a directory
    or subvolume in that, IMAGE:N/PATH; of several container images one, oci:PATH:NAME. What SRC is shows; what DST is
    to be, the end of its name says, a word before it (humfs:DIR), or --format. DST may be tar:- for standard output.

    What DST cannot carry is told in one line for each kind.

    \b
    Example:
      uml image convert debian.img humfs:debian
      uml image convert image.oci debian.ext4 --size 4G
      docker export box | uml image convert - root.img
    """
    from humfs.superblock import parse_size
    from runtime.images import convert, formats

    made = formats.destination(destination, formats.Format(name) if name else None)
    with activity(f"convert {os.path.basename(source)}") as show:
        wanted = parse_size(size) if size else None
        writing = convert.Writing(force, wanted, _epoch(), strict, warn, show.count)
        run(lambda: convert.convert(formats.source(source), made, writing))


def _epoch() -> int | None:
    from runtime.images.epoch import source_date_epoch

    return source_date_epoch(os.environ)


@command.command("resize")
@click.argument("file", metavar="FILE")
@click.argument("size", metavar="SIZE")
@progress_option
def resize_(file: str, size: str) -> None:
    """Make the raw image FILE, and the filesystem in it, SIZE long.

    It may become larger (ext2 to ext4, xfs, btrfs), and smaller (all but xfs) as far as what is in it allows. On a disk
    with partitions the last one becomes larger.

    \b
    Example:
      uml image resize debian.img 8G
    """
    from humfs.superblock import parse_size
    from runtime.images import formats
    from runtime.images.resize import resize

    with activity(f"resize {file}"):
        run(lambda: resize(formats.source(file), parse_size(size)))


@command.command("compact")
@click.argument("file", metavar="FILE")
@progress_option
def compact_(file: str) -> None:
    """Give back to the host what the filesystems in FILE do not use, and say how much that was.

    FILE is a raw image, partitioned or not, a COW file or a qcow2 image.

    \b
    Example:
      uml image compact debian.img
    """
    from runtime.images import formats
    from runtime.images.compact import compact

    with activity(f"compact {file}"):
        freed = run(lambda: compact(formats.source(file)))
    click.echo(f"{freed / (1 << 20):.1f} MiB given back")


@command.command("create")
@click.option("--format", "name", type=click.Choice(FORMATS), help="What to make; by default as the name of FILE ends.")
@click.option("--backing", metavar="BASE", help="Of a qcow2: the image that it lies over, which stays as it is.")
@force_option
@click.argument("file", metavar="FILE")
@click.argument("size", metavar="[SIZE]", required=False)
def create_(file: str, size: str | None, name: str | None, backing: str | None, force: bool) -> None:
    """Make the empty image FILE: a disk of SIZE, raw or in a format of qemu's, or a filesystem (ext4, xfs, btrfs).

    \b
    Example:
      uml image create disk.img 8G
      uml image create data.ext4 512M
      uml image create layer.qcow2 --backing base.qcow2
    """
    from humfs.superblock import parse_size
    from runtime.images import formats
    from runtime.images.create import create

    made = formats.destination(file, formats.Format(name) if name else None)
    below = formats.source(backing) if backing is not None else None
    create(made, parse_size(size) if size else None, backing=below, force=force)


@command.command("check")
@click.option("--repair", is_flag=True, help="Mend what can be mended.")
@click.argument("file", metavar="FILE")
@progress_option
def check_(file: str, repair: bool) -> int:
    """Check the image FILE, and say what is wrong with it; the exit status is 1 if anything is.

    A qcow2 and what else qemu reads is checked by qemu-img, the filesystem on a raw image or a partition by its own
    checker, a COW file and a humfs as by their own commands; archives and container images are read to their end.

    \b
    Example:
      uml image check disk.qcow2
      uml image check --repair data.ext4
      uml image check disk.img:2
    """
    from runtime.images import formats
    from runtime.images.check import check

    with activity(f"check {file}"):
        found = run(lambda: check(formats.source(file), repair=repair))
    for line in found:
        show(line)
    return 1 if found and not repair else 0


@command.command("snapshot")
@click.argument("file", metavar="FILE")
@click.argument("what", type=click.Choice(["list", "create", "apply", "delete"]), default="list")
@click.argument("name", metavar="[NAME]", required=False)
def snapshot_(file: str, what: str, name: str | None) -> None:
    """List the snapshots in a qcow2, or create, apply (go back to) or delete the one called NAME.

    \b
    Example:
      uml image snapshot disk.qcow2 create before-upgrade
      uml image snapshot disk.qcow2
      uml image snapshot disk.qcow2 apply before-upgrade
    """
    from runtime.images.create import change_snapshot, snapshots

    if what == "list":
        for each in snapshots(file):
            show(each)
        return
    if not name:
        raise click.UsageError(f"'{what}' needs the NAME of a snapshot")
    change_snapshot(file, what, name)


@command.command("map")
@picture_options
@as_json
@click.argument("file", metavar="FILE")
def map_(file: str, png: str | None, svg: str | None, as_json: bool) -> None:
    """List what of the disk FILE is held where: offset, length, 'data' or 'zero', and by which file of its chain.

    FILE is a raw image, a COW file, or one of qemu's, with all that it lies over. What is not listed is nowhere, and
    reads as zeroes. --png and --svg draw it: each file of the chain has a colour, what it holds as zeroes is pale.

    \b
    Example:
      uml image map disk.qcow2
      uml image map --svg disk.svg guest.cow
    """
    from runtime.images import formats

    show_map(formats.source(file), png, svg, as_json=as_json)


@command.command("diff")
@as_json
@click.argument("a")
@click.argument("b")
@progress_option
def diff_(a: str, b: str, as_json: bool) -> int:
    """List the ranges (offset, length) in which the disks A and B differ, whatever their formats.

    The exit status is 0 if they are the same, 1 if they differ. Which files differ, 'uml diff' tells.

    \b
    Example:
      uml image diff before.qcow2 after.cow
    """
    from runtime.cli.cow import show_differences

    return show_differences(a, b, as_json=as_json)


@command.command("rebase")
@force_option
@click.argument("top", metavar="TOP")
@click.argument("base", metavar="BASE")
@click.argument("new", metavar="[NEW]", required=False)
@progress_option
def rebase_(top: str, base: str, new: str | None, force: bool) -> None:
    """Make NEW (.cow or .qcow2) a layer over BASE with the contents of TOP: it holds where the two differ.

    TOP is any disk, a layer or a chain of them: a qcow2 chain becomes a COW file, and a COW file a qcow2. Without NEW,
    TOP is a qcow2 that is changed in place. ('uml cow rebase' is for a backing file that moved.)

    \b
    Example:
      uml image rebase top.qcow2 base.img top.cow
      uml image rebase guest.cow debian.img guest.qcow2
      uml image rebase top.qcow2 other.img
    """
    from runtime.images import formats, layers

    below = formats.source(base)
    if new is None:
        if force:
            raise click.UsageError("--force replaces NEW, and there is none")
        layers.rebase_in_place(formats.source(top), below)
        return
    made = formats.layer(new)
    with activity(f"rebase {os.path.basename(top)}") as show:
        run(lambda: layers.rebase(top, below, made, force=force, progress=show.count))


@command.command("info")
@click.argument("word", metavar="FILE")
@key_options
@as_json
def info_(word: str, as_json: bool) -> None:
    """Show what is on a disk image: partitions, filesystems, labels, how full they are, and the systems in them.

    \b
    Example:
      uml image info disk.qcow2
      uml image info --json guest.cow | jq .layers
    """
    from runtime.inspect.info import image_info
    from runtime.inspect.summary import summary
    from umlfs import sources

    found = run(lambda: image_info(sources.parse(word)))
    if as_json:
        show_json(asdict(found))
        return
    for line in summary(found):
        show(line)
