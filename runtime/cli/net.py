"""`uml net`: networks between machines."""

from __future__ import annotations

from typing import IO

import click


@click.group("net")
def command() -> None:
    """Networks between machines of this user, without root.

    Machines come onto one by `--net NAME`, and find each other as MACHINE.NAME. A network leads out through this host,
    unless it is internal.

    \b
    Example:
      uml net create lab
      uml boot -d --name web --net lab && uml run --net lab -- ping -c 1 web.lab
      uml net capture lab -w - | tcpdump -r -
    """


@command.command()
@click.argument("name")
@click.option("--subnet", metavar="CIDR", help="Its addresses.  [one that is free]")
@click.option("--internal", is_flag=True, help="It leads nowhere.")
@click.option("--isolated", is_flag=True, help="Its machines reach the world, and not each other.")
@click.option("--mtu", type=int, default=9000, metavar="N", help="The largest packet.  [9000]")
@click.option(
    "--engine",
    type=click.Choice(["auto", "bridge", "switch"]),
    default="auto",
    help="The host kernel's bridge, or our own switch.  [the bridge, where this user may have one]",
)
def create(name: str, subnet: str | None, internal: bool, isolated: bool, mtu: int, engine: str) -> None:
    """Make a network.

    \b
    Example:
      uml net create lab --subnet 10.9.0.0/24
    """
    from runtime.network import lab

    click.echo(lab.create(name, subnet, internal=internal, isolated=isolated, mtu=mtu, engine=engine).subnet)


@command.command("ls")
@click.option("--json", "as_json", is_flag=True, help="For a program.")
def list_(as_json: bool) -> None:
    """List all networks, and who is on them.

    \b
    Example:
      uml net ls
    """
    import json

    from runtime.network import lab

    rows = []
    for path, found in lab.every():
        ports = lab.ask(path, {"do": "state"})["ports"] if lab.is_running(path) else []
        machines = [port["name"] for port in ports if not port["uplink"]]
        kind = "internal" if found.internal else "isolated" if found.isolated else ""
        rows.append({"name": found.name, "subnet": found.subnet, "kind": kind, "machines": machines})
    if as_json:
        click.echo(json.dumps(rows))
        return
    for row in rows:
        click.echo(f"{row['name']:<16} {row['subnet']:<18} {row['kind']:<9} {' '.join(row['machines'])}".rstrip())


@command.command()
@click.argument("name")
def inspect(name: str) -> None:
    """Tell all of a network, as JSON: its ports with what went through them.

    \b
    Example:
      uml net inspect lab
    """
    import json
    from dataclasses import asdict

    from runtime.network import lab

    path, found = lab.find(name)
    state = lab.ask(path, {"do": "state"}) if lab.is_running(path) else {"ports": []}
    state.pop("descriptors", None)
    click.echo(json.dumps({**asdict(found), **state}, indent=2))


@command.command("rm")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
def remove(names: tuple[str, ...]) -> None:
    """Remove networks that no machine is on.

    \b
    Example:
      uml net rm lab
    """
    from runtime.network import lab

    for name in names:
        lab.remove(name)


@command.command()
@click.argument("name")
@click.argument("file", required=False, metavar="FILE.pcap")
@click.option("-w", "written", metavar="FILE", help="As FILE.pcap; - is standard output.")
def capture(name: str, file: str | None, written: str | None) -> None:
    """Write what goes over a network to a file that tcpdump and Wireshark read, until Ctrl-C.

    \b
    Example:
      uml net capture lab traffic.pcap
      uml net capture lab -w - | tcpdump -n -r -
    """
    from runtime.network import lab
    from umlfs.errors import UsageError, described

    place = written or file
    if place is None:
        raise UsageError("no file", "name one, or -w - for standard output")
    lab.find(name)
    try:
        with click.open_file(place, "wb") as target:
            _capture(name, target)
    except OSError as error:
        raise UsageError(f"{place}: {described(error)}", "name a file that you may write") from None


def _capture(name: str, target: IO[bytes]) -> None:
    import contextlib

    from runtime.network import lab
    from umlfs.wire import pcap

    path, _ = lab.find(name)
    with lab.join(path) as connection:
        lab.request(connection, {"do": "capture"})
        connection.settimeout(None)
        target.write(pcap.header())
        target.flush()
        with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
            while record := connection.recv(1 << 19):
                target.write(record)
                target.flush()


@command.command()
@click.argument("name")
@click.argument("machine")
def unplug(name: str, machine: str) -> None:
    """Pull the cable of a machine: nothing goes in or out any more.

    \b
    Example:
      uml net unplug lab db
    """
    _plug(name, machine, False)


@command.command()
@click.argument("name")
@click.argument("machine")
def plug(name: str, machine: str) -> None:
    """Put the cable of a machine in again.

    \b
    Example:
      uml net plug lab db
    """
    _plug(name, machine, True)


def _plug(name: str, machine: str, plugged: bool) -> None:
    from runtime.network import lab
    from umlfs.errors import UmlError

    path, _ = lab.find(name)
    if not lab.is_running(path):
        raise UmlError(f"{machine}: not on {name}", f"'uml net inspect {name}' lists what is")
    lab.ask(path, {"do": "plug", "name": machine, "plugged": plugged})
