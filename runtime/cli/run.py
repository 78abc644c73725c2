"""`uml run`: a command in a throwaway guest."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from runtime.cli import equipment
from runtime.cli.printing import printable_lines

if TYPE_CHECKING:
    from runtime.network.contract import Network


@click.command("run", context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False})
@click.option("--root", default="hostfs:/", metavar="SRC", help="The root: a directory with a userland in it.  [/]")
@equipment.mounts
@equipment.ubds
@click.option(
    "--ubd-driver",
    type=click.Choice(["virtio", "native"]),
    default="virtio",
    help="Who serves the disks: umlfs, or the kernel's own driver.  [virtio]",
)
@equipment.networks
@equipment.publish
@click.option("--mem", default="256M", metavar="SIZE", help="Memory of the guest.  [256M]")
@click.option("--rw", is_flag=True, help="Let changes to the root go through to SRC.")
@click.option("--pwd", metavar="DIR", help="Start in DIR.  [the current directory, where the guest has it]")
@click.option("--env", "variables", multiple=True, metavar="K=V", help="Set a variable, or pass K on with its value.")
@click.option("--user", metavar="NAME", help="Run as this user of the guest, a name or a number.  [root]")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), metavar="S", help="Give up after S seconds.")
@click.option("--kernel", metavar="FILE|NAME", help="The UML kernel.  [the newest]")
@equipment.jail
@equipment.seccomp
@equipment.smp
@equipment.time_travel
@equipment.lock_modules
@click.option("--dry-run", is_flag=True, help="Show what would be started, and start nothing.")
@click.option("-v", "--verbose", is_flag=True, help="Show the guest's boot log on standard error.")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[--] [COMMAND]...")
def command(
    root: str,
    mounts: tuple[str, ...],
    ubds: tuple[str, ...],
    ubd_driver: str,
    networks: tuple[str, ...],
    publish: tuple[str, ...],
    mem: str,
    rw: bool,
    pwd: str | None,
    variables: tuple[str, ...],
    user: str | None,
    timeout: float | None,
    kernel: str | None,
    jail: str | None,
    seccomp: str | None,
    smp: int | None,
    time_travel: str | None,
    lock_modules: bool | None,
    dry_run: bool,
    verbose: bool,
    words: tuple[str, ...],
) -> int:
    """Run a command in a throwaway guest, by default on a private snapshot of this host's /.

    The command may write anywhere: the guest keeps that in its memory and forgets it, except below --mount and with
    --rw. Standard input, output and error, the exit status and Ctrl-C are the command's own. Without a command,
    an interactive shell.

    \b
    Example:
      uml run -- uname -a
      uml run --net user -- apt-get update
      uml run --mount /src=. --pwd /src -- make check
      tar c . | uml run -- sh -c 'cd /tmp && tar x && ls'
    """
    import trio

    from runtime.command import foreground
    from runtime.jail.layers import DEFAULT, Mode
    from runtime.kernels.execution import SECCOMP, Execution
    from runtime.machine import parsing
    from runtime.machine.machine import Options
    from runtime.process import open_files, processes
    from runtime.process.memory import parse_size
    from runtime.tty import caller
    from umlfs.ubd import parse as parse_ubd

    on_terminal = caller.wants_terminal()
    options = Options(
        root=root,
        writable=rw,
        mounts=[parsing.mount(text) for text in mounts],
        ubds=[parse_ubd(text) for text in ubds],
        native_ubd=ubd_driver == "native",
        networks=_networks(networks, publish),
        on_network=_warn,
        memory=parse_size(mem),
        kernel=kernel,
        jail=Mode(jail or DEFAULT),
        execution=Execution(seccomp or SECCOMP[0], 1 if smp is None else smp, time_travel or ""),
        lock_modules=bool(lock_modules),
        terminal=on_terminal,
        on_log=_show_log if verbose else None,
    )
    environment = {**caller.environment(root, user, on_terminal), **parsing.variables(variables)}
    if dry_run:
        from runtime.machine.plan import plan

        with processes.for_machines():
            click.echo("\n".join(trio.run(plan, options, words)))
        return 0
    open_files.raise_limit()
    run = foreground.Foreground(options, timeout)
    with processes.for_machines():
        return trio.run(lambda: run.run(words, directory=parsing.directory(pwd), environment=environment, user=user))


def _networks(words: Sequence[str], publish: Sequence[str]) -> Sequence[Network]:
    if not words and not publish:
        return ()  # most runs have none, and it all takes a while to load
    from runtime.network import words as net

    return net.networks(words, publish)


def _warn(line: str) -> None:
    print(f"uml: {printable_lines(line)}", file=sys.stderr, flush=True)


def _show_log(line: bytes) -> None:
    print(printable_lines(line.decode(errors="replace")), file=sys.stderr, flush=True)
