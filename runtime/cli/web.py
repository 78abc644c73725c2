"""`uml web`: the page in the browser."""

from __future__ import annotations

from pathlib import Path

import click

from runtime.cli.path import PATH


@click.command("web")
@click.option("--bind", default="127.0.0.1:8080", metavar="ADDR:PORT", help="Where to listen.  [127.0.0.1:8080]")
@click.option("--read-only", is_flag=True, help="Change nothing: no start, no typing, no upload.")
@click.option(
    "--images",
    type=PATH,
    default=".",
    metavar="DIR",
    help="Where images are.  [this directory]",
)
@click.option("--cert", type=PATH, metavar="FILE", help="TLS: the certificate, as PEM.")
@click.option("--key", type=PATH, metavar="FILE", help="TLS: its key, as PEM.")
@click.option("--name", "names", multiple=True, metavar="HOST", help="A name by which browsers reach this server.")
def command(
    bind: str, read_only: bool, images: Path, cert: Path | None, key: Path | None, names: tuple[str, ...]
) -> None:
    """Serve a page with your machines, their consoles, and your images, until interrupted.

    Open the address that it prints: who has it may do what you may, so keep it to yourself. Other addresses than this
    host's own need TLS.

    \b
    Example:
      uml web --images ~/images
      uml web --bind 0.0.0.0:8443 --cert web.pem --key web.key --name lab.example.org
    """
    import trio

    from runtime.process import processes
    from runtime.process.open_files import raise_limit
    from runtime.tty.interrupts import until_interrupted
    from umlfs.errors import UmlError

    try:
        from runtime.web.server import ServerOptions, check, serve
    except ModuleNotFoundError as error:
        if error.name not in ("hypercorn", "starlette"):
            raise
        raise UmlError(f"the page needs {error.name}", "install it: pip install 'umlfs[web]'") from None
    options = ServerOptions(bind=bind, directory=images, read_only=read_only, certificate=cert, key=key, names=names)
    check(options)
    raise_limit()
    with processes.for_machines():
        trio.run(until_interrupted, lambda: serve(options, lambda address: click.echo(address)))
