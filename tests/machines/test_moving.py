"""`uml move`: a machine goes on at another host, which is a real sshd on loopback, and another home."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.machines.description import Description
from runtime.machines.moving import Remote, cargo_of
from tests import needs
from tests.cow.files import pair
from tests.machines.household import Household, household
from tests.ordinary import ROOT
from umlfs.errors import UmlError


@contextlib.contextmanager
def other_host(here: Household, there: Household) -> Iterator[int]:
    """The port of a host that is the same user's, with the home of `there`; `ssh` finds it by what is first in PATH."""
    needs.root()
    folder = here.home / "ssh"
    folder.mkdir(mode=0o700)
    for name in ("host", "user"):
        subprocess.run([needs.program("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    (folder / "authorized").write_bytes((folder / "user.pub").read_bytes())
    uml = folder / "bin/uml"
    uml.parent.mkdir()
    uml.write_text(
        f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -P -c "from runtime.cli import main; main()" "$@"\n'
    )
    entry = folder / "entry"
    entry.write_text(
        f"#!/bin/sh\ncd {there.home}\nexec env HOME={there.home} XDG_RUNTIME_DIR={there.home}/run "
        f'PATH={uml.parent}:$PATH sh -c "$SSH_ORIGINAL_COMMAND"\n'
    )
    ssh = folder / "client/ssh"
    ssh.parent.mkdir()
    options = f"-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -i {folder}/user"
    ssh.write_text(f'#!/bin/sh\nexec {needs.program("ssh")} -F /dev/null {options} "$@"\n')
    for each in (uml, entry, ssh):
        each.chmod(0o755)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    Path("/run/sshd").mkdir(exist_ok=True)
    settings = {
        "Port": port,
        "ListenAddress": "127.0.0.1",
        "HostKey": folder / "host",
        "AuthorizedKeysFile": folder / "authorized",
        "ForceCommand": entry,
        "StrictModes": "no",
        "UsePAM": "no",
        "PidFile": "none",
        "PermitRootLogin": "yes",
    }
    (folder / "config").write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
    with subprocess.Popen(
        [needs.program("sshd"), "-D", "-e", "-f", folder / "config"], stderr=subprocess.DEVNULL
    ) as server:
        try:
            deadline = time.monotonic() + 30
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    break
                assert time.monotonic() < deadline
                time.sleep(0.05)
            os.environ["PATH"], before = f"{ssh.parent}:{os.environ['PATH']}", os.environ["PATH"]
            try:
                yield port
            finally:
                os.environ["PATH"] = before
        finally:
            server.terminate()


@pytest.mark.guest
@pytest.mark.slow
def test_a_machine_goes_on_elsewhere(me: Household) -> None:
    with household() as there, other_host(me, there) as port:
        image = me.home / "root.img"
        tree = me.home / "tree"
        for name in ("bin", "dev", "proc", "sys", "run", "tmp", "etc"):
            (tree / name).mkdir(parents=True)
        (tree / "bin/busybox").write_bytes(needs.path("/bin/busybox").read_bytes())
        (tree / "bin/busybox").chmod(0o755)
        for name in ("sh", "cat"):
            (tree / "bin" / name).symlink_to("busybox")
        with image.open("wb") as file:
            file.truncate(64 << 20)
        subprocess.run([needs.program("mke2fs"), "-q", "-t", "ext4", "-d", tree, image], check=True)
        root = f"cow:{me.home}/web.cow,{image}"
        me.ok("boot", "-d", "--name", "web", "--mem", "64M", "--net", "none", "--root", root)
        me.ok("exec", "web", "--", "sh", "-c", "echo here >/said")
        target = f"ssh://127.0.0.1:{port}"
        done = me.uml("move", "web", "--to", target)
        assert done.returncode == 0, done.stderr
        assert done.stderr.decode().splitlines() == ["uml: web: halting", "uml: web: booting at 127.0.0.1"]
        assert me.ps() == []
        assert there.ok("exec", "web", "--", "cat", "/said") == "here\n"
        copied = there.home / ".local/share/umlfs/moved/web"
        assert sorted(path.name for path in copied.iterdir()) == ["0-base-root.img", "0-web.cow", "machine.toml"]
        assert sum(path.stat().st_blocks for path in copied.iterdir()) * 512 < 32 << 20, "holes became zeroes"
        taken = me.uml("boot", "-d", "--name", "web", "--mem", "64M", "--net", "none", "--root", root)
        assert taken.returncode == 0, "the files here stay"
        status, line = me.error("move", "web", "--to", target)
        assert (status, line.split(";")[0]) == (1, "web: a machine of that name is running at 127.0.0.1")
        there.ok("halt", "web")
        status, line = me.error("move", "web", "--to", target)
        assert (status, "File exists" in line) == (1, True), line
        assert json.loads(me.ok("ps", "--json"))[0]["umid"] == "web"
        me.ok("halt", "web")


def test_what_another_host_has_not(tmp_path: Path) -> None:
    cow, base = pair(tmp_path, 64 << 10)
    plain = Description(umid="web", root=f"cow:{cow}", networks=("user",))
    cargo = cargo_of(plain)
    assert cargo.description.root == "cow:0-cow,0-base-backing"
    assert (cargo.written, cargo.still) == ({"0-cow": cow}, {"0-base-backing": base})
    for match, keys in (
        ("its mounts is this host's", {"mounts": ("/x=.",)}),
        ("network lab is this host's", {"networks": ("lab",)}),
        ("its root hostfs:/srv is this host's", {"root": "hostfs:/srv"}),
        ("its root is this host's own", {"root": ""}),
        ("is shared with others", {"ubds": (f"ubd1c={base}",)}),
        ("no COW file", {"ubds": (f"ubd1={base}",)}),
    ):
        with pytest.raises(UmlError, match=match):
            cargo_of(Description(**{"umid": "web", "root": f"cow:{cow}", **keys}))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "target", ["host", "ssh://", "ssh://-oProxyCommand=x", "ssh://-x", "ssh://a b", "ssh://h:x", "http://h"]
)
def test_no_hosts(target: str) -> None:
    with pytest.raises(UmlError, match="not a host"):
        Remote(target)
