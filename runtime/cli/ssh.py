"""`uml ssh`: OpenSSH into a running machine."""

from __future__ import annotations

import click


@click.command("ssh", context_settings={"allow_interspersed_args": False})
@click.option("--config", "show", is_flag=True, help="Print what ~/.ssh/config needs for `ssh NAME.uml`, scp, Ansible.")
@click.argument("umid", required=False, metavar="[USER@]UMID")
@click.argument("argv", nargs=-1, type=click.UNPROCESSED, metavar="[COMMAND]...")
def command(show: bool, umid: str | None, argv: tuple[str, ...]) -> None:
    """Log in to the machine UMID by OpenSSH, as root unless a user is named, or run a command there.

    It goes over a stream through the agent in the guest: that needs sshd's program, but no network and no server that
    runs. The keys are made and known by themselves; nothing changes on the guest's disks.

    \b
    Example:
      uml ssh web
      uml ssh admin@web journalctl -b
      uml ssh --config >> ~/.ssh/config && scp web.uml:/etc/hosts .
    """
    import os
    import sys

    from runtime.cli.printing import printable
    from runtime.machines import client, ssh
    from umlfs.errors import UsageError

    proxy = [*_program(), "proxy", "--sshd"]
    if show:
        if umid is not None:
            raise UsageError(f"--config and {printable(umid)}", "leave out one of them")
        click.echo(ssh.configuration(proxy), nl=False)
        return
    if umid is None:
        raise UsageError("no machine", "name one: 'uml ps' lists those that run")
    user, _, name = umid.rpartition("@")
    path = client.find(name)
    ssh.check(path)
    line = ssh.command_line(user or "root", path.name, proxy, argv)
    sys.stdout.flush()
    os.execv(line[0], line)


def _program() -> list[str]:
    """The `uml` program that this process is."""
    import sys
    from pathlib import Path

    from runtime.host import own

    beside = Path(sys.executable).with_name("uml")
    return [str(beside)] if beside.exists() else own.uml()
