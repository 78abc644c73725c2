"""`uml cluster`: machines that share disks and a network."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from runtime.cli.path import PATH
from runtime.cli.printing import print_table, printable, printable_lines


@click.group("cluster")
def command() -> None:
    """Clusters: machines from one root, with a network and disks that they share.

    \b
    Example:
      uml cluster init mail.toml --nodes 2 --shared 1G --fs ocfs2
      uml cluster up mail.toml
      uml cluster exec mail -- df /shared
      uml cluster down mail
    """


@command.command("init")
@click.option("--nodes", type=click.IntRange(min=1), default=2, metavar="N", help="How many machines.  [2]")
@click.option("--shared", multiple=True, default=("1G",), metavar="SIZE", help="A disk that they share.  [1G]")
@click.option("--fs", "filesystem", default="ocfs2", metavar="KIND", help="What is on it: ocfs2 or none.  [ocfs2]")
@click.option("--root", default="", metavar="SRC", help="What all begin with.  [a snapshot of this host's /]")
@click.option("--mem", default="256M", metavar="SIZE", help="Memory of each machine.  [256M]")
@click.argument("file", type=PATH, default="cluster.toml")
def init_(nodes: int, shared: tuple[str, ...], filesystem: str, root: str, mem: str, file: Path) -> None:
    """Write a cluster's file, and make its shared disks beside it. The file's name is the cluster's.

    \b
    Example:
      uml cluster init mail.toml --nodes 3 --shared 1G --root debian.img
    """
    from runtime.cluster import making
    from runtime.machines.description import Description
    from runtime.process.memory import parse_size

    machine = Description(root=root, memory=parse_size(mem), init=None if root else "")
    cluster, images = making.create(file, nodes=nodes, sizes=shared, filesystem=filesystem, machine=machine)
    for each in (cluster.file, *images):
        click.echo(printable(str(each)))


@command.command("up")
@click.argument("file", type=PATH)
def up_(file: Path) -> None:
    """Start the machines of a cluster that do not run, and have them join it.

    \b
    Example:
      uml cluster up mail.toml
    """
    from runtime.cluster.bringing_up import bring_up
    from runtime.cluster.description import load

    state = bring_up(load(file), _say)
    click.echo(printable(f"{state.name}: {len(state.umids)} nodes; their log is {state.log}"))


@command.command("ps")
@click.option("--json", "as_json", is_flag=True, help="List them as JSON.")
@click.argument("cluster", required=False, metavar="[NAME|FILE]")
def ps_(as_json: bool, cluster: str | None) -> None:
    """List the machines of clusters that are up, those that ended as well.

    \b
    Example:
      uml cluster ps mail
    """
    from runtime.cluster import state
    from runtime.cluster.listing import nodes

    found = nodes(state.name_of(cluster) if cluster else None)
    if as_json:
        import json
        from dataclasses import asdict

        click.echo(json.dumps([asdict(each) for each in found], indent=2))
        return
    rows = [(it.cluster, it.umid, it.state, it.memory, it.last_words) for it in found]
    print_table(("CLUSTER", "NODE", "STATE", "MEMORY", "LAST WORDS"), rows)


@command.command("exec", context_settings={"allow_interspersed_args": False})
@click.option("--node", "numbers", type=int, multiple=True, metavar="N", help="In this one only.")
@click.option("--timeout", type=float, default=60.0, metavar="S", help="End it after S seconds.  [60]")
@click.argument("cluster", metavar="NAME|FILE")
@click.argument("argv", nargs=-1, required=True, type=click.UNPROCESSED, metavar="[--] COMMAND...")
def exec_(numbers: tuple[int, ...], timeout: float, cluster: str, argv: tuple[str, ...]) -> int:
    """Run a command in all machines of a cluster at once. Exit status 1 if it failed in one of them.

    'uml exec NAME-N' runs one in a single machine, with your terminal.

    \b
    Example:
      uml cluster exec mail -- ls /shared
    """
    from runtime.cluster import state
    from runtime.cluster.commands import run_in_all

    if argv[0] == "--":
        argv = argv[1:]
    status = 0
    for each in run_in_all(state.found(state.name_of(cluster)), argv, timeout, numbers):
        lines = printable_lines(each.text.rstrip("\n")).replace("\n", "\n  ")
        print(f"{printable(each.umid)}: {lines}", file=sys.stdout if each.ok else sys.stderr)
        status |= not each.ok
    return status


@command.command("logs")
@click.argument("cluster", metavar="NAME|FILE")
def logs_(cluster: str) -> None:
    """Print what the kernels of a cluster's machines have said, each line with the machine's name.

    \b
    Example:
      uml cluster logs mail
    """
    from runtime.cluster import state

    log = state.found(state.name_of(cluster)).log
    if log.exists():
        sys.stdout.write(printable_lines(log.read_text(errors="replace")))


@command.command("down")
@click.argument("cluster", metavar="NAME|FILE")
def down_(cluster: str) -> None:
    """End the machines of a cluster, and remove its network and what the machines changed of their roots. Shared disks
    stay.

    \b
    Example:
      uml cluster down mail
    """
    from runtime.cluster import state
    from runtime.cluster.taking_down import take_down

    take_down(state.name_of(cluster), _say)


def _say(line: str) -> None:
    print(f"uml: {printable(line)}", file=sys.stderr)
