"""`uml` where a cluster's scheduler puts it: in a container without privileges."""

from __future__ import annotations

import ctypes
import os
import re
from pathlib import Path

import pytest

from tests import needs
from tests.ordinary import OrdinaryUser

CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
SCRIPT = """
set -e
mount --make-rprivate /
mount -t tmpfs none /mnt
mkdir /mnt/dev /mnt/user
mount --bind "$1" /mnt/user
cd /mnt/dev
mount -t tmpfs none .
cd /mnt/dev
for name in null zero random urandom full tty; do : >$name; mount --bind /dev/$name $name; done
mkdir shm pts
mount -t tmpfs -o mode=1777 none shm
mount -t devpts -o newinstance,ptmxmode=0666 none pts
ln -s pts/ptmx ptmx
ln -s /proc/self/fd fd
mount --move /mnt/dev /dev
mount -t tmpfs -o mode=1777 none /tmp
mount -o remount,bind,ro /
shift
exec setpriv --reuid 1000 --regid 1000 --clear-groups --no-new-privs --inh-caps=-all --bounding-set=-all \\
    env -i -C /tmp HOME=/tmp "PATH=$PATH" LANG=C.UTF-8 "$@"
"""
"""A root that is read-only, /tmp and /dev/shm in memory, a /dev without fuse; then uid 1000 without capabilities.
/mnt/user is what the first argument names."""


def contained(user: OrdinaryUser, output: Path, script: str) -> tuple[int, str]:
    """Exit status and output of a shell script in such a container, where nobody may make user namespaces either."""
    needs.root()
    ready, go = os.pipe(), os.pipe()
    base = os.path.commonpath(user.path)
    path = ":".join(str(each).replace(base, "/mnt/user", 1) for each in user.path)
    uml = f"uml() {{ {user.python} -P -c 'from runtime.cli import main; main()' \"$@\"; }}\n"
    program = ["sh", "-c", uml + script]
    child = os.fork()
    if not child:
        try:
            fd = os.open(output, os.O_WRONLY | os.O_CREAT)
            os.dup2(fd, 1)
            os.dup2(fd, 2)
            assert ctypes.CDLL(None).unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0
            os.write(ready[1], b"x")
            os.read(go[0], 1)
            Path("/proc/sys/user/max_user_namespaces").write_text("0")
            os.execvp("sh", ["sh", "-c", SCRIPT, "sh", base, "env", f"PYTHONPATH={path}", *program])
        finally:
            os._exit(99)
    os.read(ready[0], 1)
    for name in ("uid_map", "gid_map"):
        Path(f"/proc/{child}/{name}").write_text("0 0 65536\n")
    os.write(go[1], b"x")
    _, status = os.waitpid(child, 0)
    for fd in (*ready, *go):
        os.close(fd)
    return os.waitstatus_to_exitcode(status), output.read_text()


@pytest.mark.guest
@pytest.mark.slow
def test_commands_and_machines(user: OrdinaryUser, tmp_path: Path) -> None:
    """No user namespaces, no /dev/fuse, no capabilities, a read-only root, uid 1000."""
    script = """
    uml run --mem 64M -- sh -c 'id -u; touch /written; ls /written'
    echo $?
    uml boot -d --name it --init "" --mem 64M && uml exec it -- sh -c 'echo $$ is here >/x; cat /x' && uml halt it
    """
    status, said = contained(user, tmp_path / "said", script)
    assert status == 0, said
    assert re.fullmatch(r"0\n/written\n0\nit\n\d+ is here\n", said), said
