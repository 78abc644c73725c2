"""`uml run`: a command in a throwaway guest."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runtime.cli import equipment
from runtime.cli.keys import key_options
from runtime.cli.printing import printable_lines
from umlfs.errors import UmlError, UsageError

if TYPE_CHECKING:
    from runtime.command.prepared import Prepared
    from runtime.containers.run_config import RunConfig
    from runtime.machine.machine import Machine
    from runtime.machine.options import Options
    from runtime.network.contract import Network
    from umlfs.ubd import Spec

_COMMAND_LINE = click.core.ParameterSource.COMMANDLINE
_prepared: list[Prepared] | None = None
"""Where a command goes that is only to be prepared."""


@click.command("run", context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False})
@click.option("--root", default="hostfs:/", metavar="SRC", help="The root: a directory with a userland in it.  [/]")
@click.option(
    "--root-driver",
    type=click.Choice(["virtiofs", "hostfs"]),
    default="virtiofs",
    help="Who reads the root: umlfs, or the kernel's own driver.  [virtiofs]",
)
@equipment.mounts
@equipment.ubds
@click.option(
    "--ubd-driver",
    type=click.Choice(["virtio", "native"]),
    default="virtio",
    help="Who serves the disks: umlfs, or the kernel's own driver.  [virtio]",
)
@equipment.iomem
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
@equipment.share
@click.option(
    "--process",
    "outside",
    multiple=True,
    metavar="NAME=KIND:WHAT",
    help="Show something of this host as a process of the guest: unit:SERVICE, pid:N, machine:UMID, exec:COMMAND.",
)
@click.option(
    "--warm",
    type=click.FloatRange(min=0, max=86400),
    is_flag=False,
    flag_value=60.0,
    metavar="[SECONDS]",
    help="Have a guest like this one stand booted for the next command, so long.  [60 where nothing is said]",
)
@click.option(
    "--gdb",
    "by_gdb",
    is_flag=True,
    help="Run the guest's kernel under gdb; it stops before its init.",
)
@click.option("--coverage", metavar="DIR", help="Write which lines of the kernel were run to DIR (flavour gcov).")
@click.option("--dry-run", is_flag=True, help="Show what would be started, and start nothing.")
@click.option("-v", "--verbose", is_flag=True, help="Show the guest's boot log on standard error.")
@key_options
@click.argument("argv", nargs=-1, type=click.UNPROCESSED, metavar="[--] [COMMAND]...")
def command(
    root: str,
    root_driver: str,
    mounts: tuple[str, ...],
    ubds: tuple[str, ...],
    ubd_driver: str,
    iomem: tuple[str, ...],
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
    share: str | None,
    outside: tuple[str, ...],
    warm: float | None,
    by_gdb: bool,
    coverage: str | None,
    dry_run: bool,
    verbose: bool,
    argv: tuple[str, ...],
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
      uml run --kernel ./linux --gdb -- true
      uml run --warm -- make check
    """
    import trio

    from runtime.command import foreground, prepared
    from runtime.jail.layers import DEFAULT, Mode
    from runtime.kernels.execution import SECCOMP, Execution
    from runtime.machine import owner, parsing
    from runtime.machine.machine import Options
    from runtime.process import open_files, processes
    from runtime.process.memory import parse_size, remark
    from runtime.tty import caller

    on_terminal = caller.wants_terminal()
    image_environment: Mapping[str, str] = {}
    if root.startswith(("docker:", "oci:")):
        if _prepared is not None:
            return 0  # what is fetched from elsewhere is never prepared
        root, config = _image(root)
        image_environment = config.environment
        argv, user, pwd = argv or tuple(config.command), user or config.user, pwd or config.directory
    options = Options(
        root=root,
        kernel_hostfs=root_driver == "hostfs",
        writable=rw,
        mounts=[parsing.mount(text) for text in mounts],
        owner=owner.owner(root, user),
        ubds=_ubds(ubds),
        native_ubd=ubd_driver == "native",
        arguments=_iomem(iomem, kernel),
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
    if outside:  # an agent that runs several things at a time
        from runtime import guest

        options = replace(options, init=guest.Init(program=""))
    if said := remark(options.memory):
        _warn(said)
    environment = {
        **caller.environment(root, user, on_terminal),
        **image_environment,
        **parsing.variables(variables),
    }
    it = prepared.Prepared(
        options, argv, parsing.directory(pwd), environment, user, timeout, prepared.key_of(options), on_terminal
    )
    if warm:
        it = replace(it, how=foreground.how(on_terminal))
    why_not = "--gdb, --coverage, --dry-run or -v" if by_gdb or coverage is not None or dry_run or verbose else ""
    why_not = why_not or ("--share" if share else "--process" if outside else "")
    it = replace(it, warm=warm, why_not_warm=why_not or prepared.why_not_warm(options, published=bool(publish)))
    if _prepared is not None:
        _prepared.append(it)
        return 0
    if warm and it.why_not_warm and click.get_current_context().get_parameter_source("warm") is _COMMAND_LINE:
        raise UsageError(f"--warm: no guest can stand with {it.why_not_warm}", "leave out one of the two")
    if dry_run:
        from runtime.machine.plan import plan

        with processes.for_machines():
            click.echo("\n".join(trio.run(plan, options, argv)))
        return 0
    open_files.raise_limit()
    given: dict[str, Any] = {"directory": it.directory, "environment": environment, "user": user}
    if by_gdb:
        with _sharing(share):
            return _run_by_gdb(options, argv, given, timeout, coverage)
    afterwards = None
    if coverage is not None:
        from runtime.command.coverage import collect, mount
        from runtime.kernels.kernel import find_kernel

        options = replace(options, mounts=[*options.mounts, mount(find_kernel(kernel), Path(coverage))])
        afterwards = collect
    run = foreground.Foreground(options, timeout, afterwards, beside=_beside(outside))
    with processes.for_machines(), _sharing(share):
        status = trio.run(lambda: run.run(argv, **given))
    if warm is not None and not it.why_not_warm:
        _keep_warm(it, warm)
    return status


def prepare(arguments: list[str]) -> Prepared | None:
    """What `uml ARGUMENTS` is to do, if that is a `uml run` that makes sense; nothing is done or said."""
    from runtime.cli.group import uml

    global _prepared
    found: list[Prepared] = []
    _prepared = found
    try:
        with uml.make_context("uml", list(arguments)) as ctx:
            if ctx.protected_args[:1] == ["run"]:
                uml.invoke(ctx)
    except (click.ClickException, click.exceptions.Exit, UmlError):
        return None
    finally:
        _prepared = None
    return found[0] if found else None


def _image(root: str) -> tuple[str, RunConfig]:
    """The image `root`, by its digest where it has one, and how it wants to be run. UmlError."""
    import trio

    from runtime.containers.run_config import read_run_config

    found = trio.run(read_run_config, root)
    assert found is not None
    for name in found[1].left_out:
        _warn(f"{root}: the image's variable {name!r} is left out: a shell has no such names")
    if found[1].group is not None:
        _warn(f"{root}: the image's group {found[1].group} is left out: its user has their own groups")
    return found


def _keep_warm(it: Prepared, seconds: float) -> None:
    from runtime.cli.failure import FAILED, OURS, report
    from runtime.warm.guest import Commands
    from runtime.warm.keeper import keep

    def reported(error: BaseException) -> int:
        status = report(error, bool(os.environ.get("UML_DEBUG")))
        return OURS if status == FAILED else status

    try:
        keep(it, Commands(prepare, reported), seconds)
    except UmlError as error:
        _warn(f"no guest stands for the next command: {error}")


def _beside(texts: Sequence[str]) -> Callable[[Machine], AbstractAsyncContextManager[None]] | None:
    """What shows the things of `--process` in a machine. UsageError."""
    if not texts:
        return None
    from runtime.captive import outside

    words = [outside.parse(text) for text in texts]
    return lambda machine: outside.shown(machine, words)


@contextlib.contextmanager
def _sharing(text: str | None) -> Iterator[None]:
    """This process, and the guest, have no more of the host than `--share` says."""
    if text is None:
        yield
        return
    from runtime.process.control_group import joined
    from runtime.process.share import parse_share

    share = parse_share(text)
    with joined(share.compartment or f"run-{os.getpid()}", share.limits(), "--share"):
        yield


def _run_by_gdb(
    options: Options, argv: Sequence[str], given: Mapping[str, Any], timeout: float | None, coverage: str | None
) -> int:
    """Run it under gdb. UsageError for what gdb, which takes its time, makes no sense with."""
    import trio

    from runtime.command.debugged import run_debugged
    from runtime.kernels.debugging import advice, check_may_attach, gdb_path
    from runtime.kernels.kernel import find_kernel
    from runtime.process import processes

    for name, value in (("--timeout", timeout), ("--coverage", coverage)):
        if value is not None:
            raise UsageError(f"--gdb and {name} do not go together", f"leave {name} out")
    gdb_path()
    check_may_attach("uml run --gdb")
    if text := advice(find_kernel(options.kernel).path):
        _warn(text)
    with processes.for_machines():
        return trio.run(lambda: run_debugged(replace(options, terminal=False), argv or ["true"], **given))


def _ubds(specs: Sequence[str]) -> Sequence[Spec]:
    if not specs:
        return ()
    from umlfs import ubd

    return [ubd.parse(spec) for spec in specs]


def _networks(wanted: Sequence[str], publish: Sequence[str]) -> Sequence[Network]:
    if not wanted and not publish:
        return ()  # most runs have none, and it all takes a while to load
    from runtime.network import parsing as net

    return net.networks(wanted, publish)


def _iomem(texts: Sequence[str], kernel: str | None) -> Sequence[str]:
    if not texts:
        return ()
    from runtime.machine.shared_memory import kernel_words

    return kernel_words(texts, kernel)


def _warn(line: str) -> None:
    print(f"uml: {printable_lines(line)}", file=sys.stderr, flush=True)


def _show_log(line: bytes) -> None:
    print(printable_lines(line.decode(errors="replace")), file=sys.stderr, flush=True)
