"""`uml proxy`: this process's standard streams, connected to a port of a running machine."""

from __future__ import annotations

import click


@click.command("proxy")
@click.option("--sshd", is_flag=True, help="Connect to a server of OpenSSH that is started for it, in place of a port.")
@click.argument("umid")
@click.argument("port", required=False, metavar="[[HOST:]PORT]")
def command(sshd: bool, umid: str, port: str | None) -> int:
    """Connect standard input and output to a TCP port of the machine UMID.

    It goes through the agent in the guest, which needs no network for it. Without a port it is 22, the guest's sshd.

    \b
    Example:
      uml proxy web 80 < request
      ssh -o ProxyCommand='uml proxy web' root@web
    """
    import trio

    from runtime.machines import client, forwarding, ssh
    from umlfs.errors import UsageError

    if sshd and port is not None:
        raise UsageError(f"--sshd and {port}", "leave out one of them")
    path = client.find(umid.removesuffix(ssh.SUFFIX))
    words = ssh.SERVER if sshd else forwarding.target(port or "22").command
    if sshd:
        trio.run(ssh.prepare, path)
    return trio.run(lambda: client.Run(path).run(words, streams=(0, 1, 2), directory="/"))
