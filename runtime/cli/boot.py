"""`uml boot`: a machine that stays up."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import click

from runtime.cli import equipment
from runtime.cli.keys import key_options
from runtime.cli.path import PATH
from runtime.cli.printing import printable


def _show_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from importlib.metadata import version

        from runtime.kernels.kernel import find_kernel

        kernel = find_kernel(ctx.params.get("kernel"))
        click.echo(f"uml {version('umlfs')}\nlinux {kernel.version} ({kernel.path})")
        ctx.exit()


def _kernel_says(option: str) -> Callable[[click.Context, click.Parameter, bool], None]:
    """What shows the kernel's own answer to `option`."""

    def show(ctx: click.Context, param: click.Parameter, value: bool) -> None:
        if value and not ctx.resilient_parsing:
            from runtime.kernels.kernel import ask, find_kernel

            click.echo(ask(find_kernel(ctx.params.get("kernel")).path, option), nl=False)
            ctx.exit()

    return show


LITERAL = "runtime.cli.boot.literal"
"""Where a context has the words after `--`."""


class _Boot(click.Command):
    """Keeps apart what comes after `--`, which click would put to the rest."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        here = args.index("--") if "--" in args else len(args)
        ctx.meta[LITERAL] = tuple(args[here + 1 :])
        return super().parse_args(ctx, args[:here])


@click.command("boot", cls=_Boot, context_settings={"allow_interspersed_args": True})
@click.option(
    "-d", "--detach", is_flag=True, help="Return when the machine takes commands; it goes on in the background."
)
@click.option("--wait", is_flag=True, help="With -d: return when its init has started all that it is to start.")
@click.option("--name", "umid", metavar="UMID", help="Its name.  [made up]")
@click.option("--root", metavar="SRC", help="The root, written through.  [a snapshot of this host's /, thrown away]")
@click.option("--throwaway", is_flag=True, default=None, help="Keep changes to the root in memory, for this time only.")
@click.option("--init", metavar="PROGRAM", help="The guest's first process.  [/sbin/init, where the root has it]")
@click.option("--user", metavar="NAME", help="Whose your files are in the guest, a name or a number.  [root]")
@equipment.mounts
@click.option(
    "--slots", type=int, metavar="N", help="How many directories, and disks, can be added while it runs.  [2]"
)
@equipment.networks
@equipment.publish
@click.option(
    "--pass-fd",
    "descriptors",
    multiple=True,
    metavar="N[-M]",
    help="Descriptors of this command that the kernel inherits: for cards that come while it runs.",
)
@equipment.ubds
@click.option(
    "--ubd-driver",
    type=click.Choice(["virtio", "native"]),
    help="Who serves the disks: umlfs, or the kernel.  [virtio]",
)
@equipment.iomem
@click.option("--mem", metavar="SIZE", help="Memory of the guest.  [256M]")
@click.option("--kernel", metavar="FILE|NAME", is_eager=True, help="The UML kernel.  [the newest]")
@equipment.jail
@equipment.seccomp
@equipment.smp
@equipment.time_travel
@equipment.lock_modules
@key_options
@click.option("--no-reboot", is_flag=True, help="A guest that restarts ends the machine.")
@click.option("--on-panic", metavar="COMMAND", help="A shell command for when the guest panics.")
@click.option(
    "--on-hang", metavar="COMMAND", help="A shell command for when the kernel is silent, or its watchdog not fed."
)
@click.option(
    "--hang-after", "hang_seconds", type=int, metavar="S", help="Seconds until a silent kernel is hung.  [60]"
)
@click.option("--cpus", metavar="LIST", help="Processors of this host that it may use, such as 0-2,5.")
@click.option("--nice", type=int, metavar="N", help="Its priority on this host, from -20 to 19.")
@click.option("--numa", metavar="NODE", help="The node of this host that its memory comes from.")
@click.option("--cpu-quota", metavar="PERCENT", help="How much of a processor it gets, such as 50%.")
@click.option("--memory-max", metavar="SIZE", help="How much of this host's memory it gets at most.")
@equipment.share
@click.option("--ssh", "by_ssh", is_flag=True, help="Have it ready for ssh, scp and Ansible: see 'uml ssh'. With -d.")
@click.option(
    "--save",
    type=PATH,
    metavar="FILE.toml",
    help="Write it down, and boot nothing.",
)
@click.option(
    "--version", is_flag=True, expose_value=False, callback=_show_version, help="Say which, and which kernel."
)
@click.option(
    "--showconfig",
    is_flag=True,
    expose_value=False,
    callback=_kernel_says("--showconfig"),
    help="How the kernel was built.",
)
@click.option(
    "--kernel-help",
    is_flag=True,
    expose_value=False,
    callback=_kernel_says("--help"),
    help="The kernel's own arguments.",
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[FILE.toml] [KERNEL ARGUMENT]... [-- WORD...]")
def command(
    detach: bool,
    wait: bool,
    iomem: tuple[str, ...],
    by_ssh: bool,
    mem: str | None,
    no_reboot: bool,
    save: Path | None,
    arguments: tuple[str, ...],
    **options: object,
) -> int:
    """Boot a machine that stays up until its guest halts.

    A classic command line works as it stands: mem=, umid=, uml_dir=, ubdN=, root=, rootfstype=, rootflags=, init=,
    initrd=, con=, ssl=, xterm=, mconsole=notify:, hostfs=, iomem=, eth, vec, ro, noreboot. What is none of these goes
    to the kernel (--kernel-help lists its own) and to the guest's init. A word that is nearly one of these is an error;
    after -- it is none.

    \b
    Example:
      uml boot -d --wait --name web --root humfs:debian
      uml boot mem=512M umid=debian ubd0=root.cow,root.img root=/dev/ubda con=null con1=fd:0,fd:1
      uml boot --root ./debian --save web.toml && uml boot -d web.toml
    """
    from runtime.machines import command_line, description, start
    from runtime.machines.supervisor import Supervisor
    from runtime.process.memory import parse_size
    from runtime.tty.caller import wants_terminal
    from umlfs.errors import UsageError

    given = {**options, "memory": None if mem is None else parse_size(mem), "reboot": False if no_reboot else None}
    described, remarks = command_line.describe(arguments, given, click.get_current_context().meta[LITERAL])
    if iomem:
        from runtime.machine.shared_memory import kernel_words

        described = replace(described, arguments=(*described.arguments, *kernel_words(iomem, described.kernel or None)))
    if by_ssh and not detach:
        raise UsageError("--ssh without -d", "add -d, or use uml ssh later")
    if wait and not detach:
        raise UsageError("--wait without -d", "add -d")
    if wait and described.initrd:
        raise UsageError("--wait with initrd=: nothing of ours is in the guest, to see it", "leave out --wait")
    if save is not None:
        description.save(described, save)
        return 0
    supervisor = Supervisor(described, on_terminal=wants_terminal() and not detach)
    for remark in (*remarks, *supervisor.remarks):
        print(f"uml: {printable(remark)}", file=sys.stderr)
    umid = supervisor.description.umid
    if detach:
        start.in_background(supervisor)
        if wait:
            _wait(umid, described.uml_dir)
        if by_ssh:
            _prepare_ssh(umid, described.uml_dir)
        click.echo(umid)
        return 0
    return start.in_foreground(supervisor, lambda: None)


def _wait(umid: str, uml_dir: str) -> None:
    import trio

    from runtime.machines import client, coming_up, directory

    path = client.find(umid, directory.machines_directory(uml_dir or None))
    if trio.run(coming_up.wait_until_up, path) == coming_up.DEGRADED:
        remark = f"{umid}: not all of its services started; 'uml exec {umid} -- systemctl --failed' lists them"
        print(f"uml: {printable(remark)}", file=sys.stderr)


def _prepare_ssh(umid: str, uml_dir: str) -> None:
    import trio

    from runtime.machines import client, directory, ssh

    path = client.find(umid, directory.machines_directory(uml_dir or None))
    ssh.check(path)
    trio.run(ssh.prepare, path)
