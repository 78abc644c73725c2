"""Options that say what a guest gets, for all commands that start one."""

from __future__ import annotations

import click

mounts = click.option(
    "--mount",
    "mounts",
    multiple=True,
    metavar="DIR=SRC[:OPTION]...",
    help="Put SRC at DIR in the guest. Options: ro, append, cache=WHEN...",
)
networks = click.option(
    "--net",
    "networks",
    multiple=True,
    is_flag=False,
    flag_value="user",
    metavar="[KIND[:OPTION,...]]",
    help="A network card: user (the internet, through this host), which is meant where nothing is said, one that "
    "uml net has made, or none.",
)
publish = click.option(
    "-p",
    "--publish",
    multiple=True,
    metavar="[ADDR:]PORT:GUEST[/udp]",
    help="Have a port of this host lead to one of the guest.",
)
ubds = click.option(
    "--ubd", "ubds", multiple=True, metavar="SPEC", help="Attach a disk: ubd0=FILE or ubd0=COW,BACKING."
)
iomem = click.option(
    "--iomem",
    multiple=True,
    metavar="NAME=FILE",
    help="Memory shared with whoever maps FILE: the one called mmapper is the guest's /dev/mmapper.",
)
seccomp = click.option(
    "--seccomp",
    type=click.Choice(["auto", "on", "off"]),
    help="Run the guest's processes without ptrace, which is faster: where a jail stands, always or not.  [auto]",
)
smp = click.option(
    "--smp", type=int, metavar="N", help="Processors of the guest, where its kernel can have several.  [1]"
)
time_travel = click.option(
    "--time-travel",
    metavar="MODE",
    help="The guest's own clock, which waits in no time: inf-cpu, or ext:ID:SOCKET for one told by another.",
)
jail = click.option(
    "--jail",
    type=click.Choice(["auto", "strict", "off"]),
    help="Keep the kernel process from this host: as far as that goes, entirely or not at all, or not.  [auto]",
)
lock_modules = click.option(
    "--lock-modules", is_flag=True, default=None, help="The guest's kernel takes no more modules once it is up."
)


def _share(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """The share itself, for the name of one. UsageError."""
    if value is None or context.resilient_parsing:
        return value
    from runtime.host.configuration import compartment
    from runtime.process.share import parse_share

    meant = value if "=" in value else compartment(value)
    parse_share(meant)
    return meant


share = click.option(
    "--share",
    metavar="[NAME:]LIMITS|NAME",
    callback=_share,
    help="How much of this host it gets: cpu=2,mem=1G,io=50; NAME is what several machines have together.",
)
