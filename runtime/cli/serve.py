"""`uml serve`: a source to other programs, over NBD or as a vhost-user device."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from runtime.cli.keys import key_options
from runtime.cli.path import PATH
from umlfs.errors import UmlError, UsageError

_path = click.Path(path_type=Path, readable=False, dir_okay=False)
_socket = click.option("--socket", "socket_path", type=_path, metavar="PATH", help="The Unix socket to listen on.")
_read_only = click.option("--read-only", is_flag=True, help="Refuse every change.")


@click.group("serve")
def command() -> None:
    """Serve a source to other programs, until interrupted.

    One line is printed when clients can connect. SIGINT (Ctrl-C) and SIGTERM end it cleanly: what was written is
    flushed, the socket removed.

    \b
    Example:
      uml serve nbd disk.img --socket /tmp/disk.sock
      uml serve nbd cow:disk.cow --port 10809 --read-only
      uml serve virtiofs ./project --socket /tmp/project.sock
      uml serve virtioblk disk.img --socket /tmp/disk.sock
    """
    from runtime.process.open_files import raise_limit

    raise_limit()


@command.command("nbd")
@click.argument("source", metavar="SRC")
@_socket
@click.option("--port", type=click.IntRange(0, 65535), help="The TCP port to listen on; 0 takes a free one.")
@click.option(
    "--address", default="127.0.0.1", show_default=True, help="The address for --port. There is no password: mind who."
)
@_read_only
@key_options
@click.option("--name", default="", help="The export's name. The empty name always works too.")
def nbd(source: str, socket_path: Path | None, port: int | None, address: str, read_only: bool, name: str) -> None:
    """Serve the block device SRC to any number of NBD clients (qemu, nbd-client, libnbd…), and print its URI.

    \b
    Example:
      uml serve nbd disk.img --socket /tmp/disk.sock
      qemu-img convert 'nbd+unix:///?socket=/tmp/disk.sock' copy.qcow2
    """
    import trio

    from runtime.serve import sockets
    from umlfs import sources

    where = socket_path if port is None else (address, port)
    if where is None or (socket_path is not None and port is not None):
        raise UsageError("say where to listen", "either --socket PATH or --port N")
    serve = partial(sockets.serve_nbd, name=name, read_only=read_only)
    trio.run(serve, sources.parse(source), where, click.echo)


@command.command("virtiofs")
@click.argument("source", metavar="SRC")
@_socket
@click.option("--tag", default="uml", show_default=True, help="What the guest mounts.")
@_read_only
def virtiofs(source: str, socket_path: Path | None, tag: str, read_only: bool) -> None:
    """Serve the filesystem SRC as a virtio-fs device, to one guest after the other.

    The guest's kernel gets it with virtio_uml.device=PATH:26.

    \b
    Example:
      uml serve virtiofs ./project --socket /tmp/project.sock --tag project
    """
    import trio

    from runtime.serve import sockets
    from umlfs import sources

    if socket_path is None:
        raise UsageError("say where to listen", "--socket PATH")
    trio.run(
        partial(sockets.serve_virtiofs, tag=tag, read_only=read_only), sources.parse(source), socket_path, click.echo
    )


@command.command("virtioblk")
@click.argument("source", metavar="SRC")
@_socket
@click.option("--serial", default="", help="The serial number that the guest sees, up to 20 bytes.")
@_read_only
@key_options
def virtioblk(source: str, socket_path: Path | None, serial: str, read_only: bool) -> None:
    """Serve the block device SRC as a virtio-blk device, to one guest after the other.

    The guest's kernel gets it with virtio_uml.device=PATH:2, qemu with a vhost-user-blk device.

    \b
    Example:
      uml serve virtioblk cow:disk.cow --socket /tmp/disk.sock --serial root
    """
    import trio

    from runtime.serve import sockets
    from umlfs import sources

    if socket_path is None:
        raise UsageError("say where to listen", "--socket PATH")
    trio.run(
        partial(sockets.serve_virtioblk, serial=serial, read_only=read_only),
        sources.parse(source),
        socket_path,
        click.echo,
    )


@command.command("web")
@click.argument("sites", type=PATH, metavar="SITES.toml")
@click.option("--bind", default="127.0.0.1:8080", metavar="ADDR:PORT", help="Where to listen.  [127.0.0.1:8080]")
def web(sites: Path, bind: str) -> None:
    """Serve web sites whose scripts run in guests, one guest for each site, as SITES.toml lists them.

    A site's guest is booted by its first request, and ended when nobody asks any more. Nothing that a script does
    reaches this host or another site.

    \b
    Example:
      uml serve web sites.toml
      uml serve web sites.toml --bind 0.0.0.0:80
    """
    import trio

    from runtime.process import processes
    from runtime.sites import config
    from runtime.tty.interrupts import until_interrupted

    found = config.load(sites)
    try:
        import hypercorn.trio  # noqa: F401

        from runtime.sites.server import serve
    except ModuleNotFoundError as error:
        if error.name != "hypercorn":
            raise
        raise UmlError("web sites need hypercorn", "install it: pip install 'umlfs[web]'") from None
    with processes.for_machines():
        trio.run(until_interrupted, partial(serve, found, bind, click.echo))
