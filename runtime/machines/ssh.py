"""OpenSSH into a running machine, over a stream through its agent: no network is needed, and no server that runs.

Each connection has an sshd of its own (`sshd -i`), with a configuration, a host key and an authorized key in the
guest's /run: nothing on its disks changes. Both key pairs are made once for each user of the host. The host key is the
same for all machines: who is at the other end is said by the machine's control socket, where nobody else can listen.
"""

from __future__ import annotations

import base64
import os
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import trio

from runtime.host.needs import find_program
from runtime.machine.script import BUSYBOX
from runtime.machines.client import Run
from umlfs.errors import UmlError
from umlfs.host.newfile import write_new
from umlfs.host.programs import run_program

SUFFIX: Final = ".uml"
"""Of the names of machines in a configuration of ssh."""
ALIAS: Final = "umlfs"
"""What the host key is known by."""
PLACE: Final = "/run/umlfs-ssh"
"""In the guest."""
IDENTITY: Final = "id_ed25519"
HOST_KEY: Final = "host_ed25519"
_CONFIGURATION: Final = f"""\
HostKey {PLACE}/{HOST_KEY}
AuthorizedKeysFile {PLACE}/authorized_keys .ssh/authorized_keys
StrictModes no
UsePAM yes
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
PrintMotd no
PidFile none
AcceptEnv LANG LC_*
Subsystem sftp internal-sftp
"""
SERVER: Final = (
    BUSYBOX,
    "sh",
    "-c",
    "for sshd in /usr/sbin/sshd /usr/bin/sshd /usr/local/sbin/sshd; do"
    f' [ ! -x $sshd ] || exec $sshd -i -f {PLACE}/sshd_config; done; echo "uml: the guest has no sshd" >&2; exit 127',
)
"""The server of one connection."""
_PREPARE: Final = f"""\
umask 077; mkdir -p {PLACE} /run/sshd && chmod 755 {PLACE} /run/sshd && cd {PLACE} && [ -f ready ] && exit
decode() {{ echo "$2" | base64 -d >"$1.new" && mv "$1.new" "$1"; }}
decode {HOST_KEY} "$1" && decode authorized_keys "$2" && decode sshd_config "$3" &&
    chmod 644 authorized_keys && : >ready
"""
CONFIGURATION_HEAD: Final = (
    "# Machines of umlfs: `ssh NAME.uml`, and so scp, rsync, Ansible. Made by `uml ssh --config`.\n"
)


def directory() -> Path:
    """Where this user's keys are, made if need be. UmlError."""
    base = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share")
    path = base / "umlfs" / "ssh"
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UmlError(f"{path}: cannot be made: {error.strerror}", "name another place in XDG_DATA_HOME") from None
    return path


def keys() -> Path:
    """The directory with both key pairs and the file of known hosts, made if need be. UmlError without ssh-keygen."""
    place = directory()
    for name in (IDENTITY, HOST_KEY):
        if not (place / f"{name}.pub").exists():
            _make_key(place / name)
    known = f"{ALIAS} {(place / f'{HOST_KEY}.pub').read_text()}"
    file = place / "known_hosts"
    if not file.exists() or file.read_text() != known:
        _put(file, known)
    return place


def _make_key(path: Path) -> None:
    """Make a pair, so that nobody ever finds half of it."""
    program = find_program("ssh-keygen")
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    words = [program, "-q", "-t", "ed25519", "-N", "", "-C", "umlfs", "-f", str(draft)]
    done = run_program(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        raise UmlError(
            f"{path}: no key: {done.stdout.decode(errors='replace').strip()}", "make room, or look at the path"
        )
    os.rename(draft, path)
    os.rename(draft.with_name(f"{draft.name}.pub"), path.with_name(f"{path.name}.pub"))


def _put(path: Path, text: str) -> None:
    write_new(str(path), text.encode())


async def prepare(machine: Path) -> None:
    """Have the machine with the directory `machine` ready for connections. UmlError."""
    place = keys()
    texts = [(place / HOST_KEY).read_bytes(), (place / f"{IDENTITY}.pub").read_bytes(), _CONFIGURATION.encode()]
    words = [BUSYBOX, "sh", "-c", _PREPARE, "sh", *(base64.b64encode(text).decode() for text in texts)]
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        status = await Run(machine).run(words, streams=(null, null, null), directory="/")
    finally:
        os.close(null)
    if status:
        raise UmlError(f"{machine.name}: the keys cannot be put into the guest's /run", "look at it with uml exec")


def options(umid: str, proxy: Sequence[str]) -> dict[str, str]:
    """What ssh is told of the machine `umid`; `proxy` is the command that connects to it."""
    place = keys()
    return {
        "ProxyCommand": f"{shlex.join(proxy)} {umid}".replace("%", "%%") if umid != "%n" else f"{shlex.join(proxy)} %n",
        "IdentityFile": str(place / IDENTITY),
        "IdentitiesOnly": "yes",
        "UserKnownHostsFile": str(place / "known_hosts"),
        "HostKeyAlias": ALIAS,
        "CheckHostIP": "no",
        "StrictHostKeyChecking": "yes",
    }


def configuration(proxy: Sequence[str]) -> str:
    """A piece of ~/.ssh/config that has every machine reached as NAME.uml."""
    lines = [f"    {name} {value}\n" for name, value in options("%n", proxy).items()]
    return f"{CONFIGURATION_HEAD}Host *{SUFFIX}\n    User root\n{''.join(lines)}"


def command_line(user: str, umid: str, proxy: Sequence[str], words: Sequence[str]) -> list[str]:
    """The command line of ssh into the machine `umid`, with `words` after it. UmlError without ssh."""
    program = find_program("ssh")
    given = [word for name, value in options(umid, proxy).items() for word in ("-o", f"{name}={value}")]
    return [program, *given, f"{user}@{umid}{SUFFIX}", *words]


def check(machine: Path) -> None:
    """UmlError unless the guest has an sshd."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    words = [BUSYBOX, "sh", "-c", "[ -x /usr/sbin/sshd ] || [ -x /usr/bin/sshd ] || [ -x /usr/local/sbin/sshd ]"]
    try:
        status = trio.run(lambda: Run(machine).run(words, streams=(null, null, null), directory="/"))
    finally:
        os.close(null)
    if status:
        raise UmlError(f"{machine.name}: the guest has no sshd", "install openssh-server in it, or use uml exec -it")
