"""`uml run --net`: what a guest reaches, and what it does not."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import needs
from tests.guest.caller import Caller, eventually
from tests.network.servers import free_port, greeting, heard

pytestmark = pytest.mark.guest

SERVER = """
import socket
with socket.create_server(("", 7001)) as listener:
    while True:
        with listener.accept()[0] as connection:
            connection.sendall(f"it is {connection.getsockname()[0]}\\n".encode())
"""
REACH = "exec 3<>/dev/tcp/10.0.2.2/{port} && cat <&3"


def test_a_guest_has_no_network(me: Caller) -> None:
    assert me.output("--", "sh", "-c", "ls /sys/class/net") == "lo\n"


def test_the_internet(caller: Caller) -> None:
    """Address, route and resolver are there before the command starts; the host's file stays as it is."""
    before = Path("/etc/resolv.conf").read_bytes()
    script = f"""
    ip -o -4 addr show dev eth0 | grep -o 'inet [^ ]*'; cat /sys/class/net/eth0/mtu
    ip route | head -1 | cut -d" " -f1-5; grep nameserver /etc/resolv.conf
    # A router of IPv6 that announces itself brings no second route.
    if ip -6 route show default | grep -q .; then cat /proc/sys/net/ipv6/conf/eth0/accept_ra; else echo 0; fi
    {REACH}
    """
    with greeting() as port:
        output = caller.output("--net", "user:host=yes", "--", "bash", "-c", script.format(port=port))
    expected = ["inet 10.0.2.100/24", "9000", "default via 10.0.2.2 dev eth0", "nameserver 10.0.2.3", "0", "hello"]
    assert [line.strip() for line in output.splitlines()] == expected
    assert Path("/etc/resolv.conf").read_bytes() == before


def test_the_hosts_loopback_is_the_hosts(me: Caller) -> None:
    with greeting() as port:
        done = me.run("--net", "user", "--", "bash", "-c", REACH.format(port=port))
    assert (done.returncode, done.stdout) == (1, b"")


@pytest.mark.mapped_root
def test_a_guest_that_may_go_to_one_place(me: Caller) -> None:
    """In a network of the test's own, which has two."""
    asks = "for n in 1 2; do (exec 3<>/dev/tcp/192.0.2.$n/7001 && cat <&3); done 2>/dev/null; true"
    script = (
        "ip link set lo up && ip addr add 192.0.2.1/32 dev lo && ip addr add 192.0.2.2/32 dev lo || exit\n"
        f"{shlex.join([sys.executable, '-c', SERVER])} & server=$!\n"
        f"{shlex.join(me.command('run', '--net', 'user:allow=192.0.2.1', '--', 'bash', '-c', asks))}\nkill $server"
    )
    done = subprocess.run(
        [needs.program("unshare"), "--net", "bash", "-c", script],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert done.stdout == b"it is 192.0.2.1\n", done.stderr


def test_a_root_that_is_written_through_keeps_its_resolver(me: Caller) -> None:
    """Also where the guest writes into it."""
    root = me.make("root", {"etc/resolv.conf": "nameserver 192.0.2.1\n", "tmp/file": ""})
    for name in ("proc", "sys", "dev", "run", "bin"):
        (root / name).mkdir()
    (root / "bin/sh").write_bytes(Path("/bin/busybox").read_bytes())
    (root / "bin/sh").chmod(0o755)
    script = "read -r line </etc/resolv.conf; echo $line; echo more >>/etc/resolv.conf; echo >/new"
    assert me.output("--net", "user", "--root", str(root), "--rw", "--", "sh", "-c", script) == "nameserver 10.0.2.3\n"
    assert (root / "etc/resolv.conf").read_text() == "nameserver 192.0.2.1\n"
    assert (root / "new").exists()


def test_a_published_port_comes_back_with_its_engine(me: Caller) -> None:
    port = free_port()
    script = "while :; do echo hello | busybox nc -l -p 80 -w 1 >/dev/null 2>&1; done"
    words = me.command("run", "--net", "user", "-p", f"127.0.0.1:{port}:80", "--", "sh", "-c", script)
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE) as running:
        try:
            assert eventually(lambda: heard(port) == b"hello\n")
            os.kill(engine(me), signal.SIGKILL)
            assert eventually(lambda: heard(port) == b"hello\n")
        finally:
            running.terminate()
            assert running.stderr is not None
            said = running.stderr.read().decode()
    assert said == "uml: slirp4netns ended (killed by signal 9); it is started again\n"


def engine(caller: Caller) -> int:
    """The process of the one engine that serves a guest of `caller`."""
    for entry in Path("/proc").glob("[0-9]*"):
        words = (entry / "cmdline").read_bytes().split(b"\0") if entry.exists() else [b""]
        if words[0].endswith(b"slirp4netns") and any(bytes(caller.runtime) in word for word in words):
            return int(entry.name)
    raise AssertionError("no engine")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left(me: Caller, number: signal.Signals) -> None:
    """Of an engine, however its machine ends; see `caller_as` for the rest."""
    words = me.command("run", "--net", "user", "--", "sh", "-c", "echo up; sleep 60")
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"up\n"
        pid = engine(me)
        running.send_signal(number)
    assert eventually(lambda: not Path(f"/proc/{pid}").exists())


def test_bad_words_start_nothing(me: Caller) -> None:
    done = me.run("-p", "8080:80", "--", "true")
    assert (done.returncode, done.stderr) == (
        2,
        b"uml: --publish 0.0.0.0:8080:80/tcp: the machine has no network for it; add --net user\n",
    )
