"""Cards of old on machines of today: `eth0=daemon` on a uml_switch, tap devices."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess

import pytest

from runtime.mconsole.blocking import ask
from tests import needs
from tests.interop.test_uml_switch import OURS, switch
from tests.machines.household import Household
from tests.machines.test_networks import reaches

pytestmark = pytest.mark.guest


@pytest.mark.parametrize("whose", ["ours", "Debian's"])
def test_on_a_switch_of_old(me: Household, whose: str) -> None:
    control = me.home / "ctl"
    with switch(OURS if whose == "ours" else [needs.program("uml_switch")], control):
        for number, name in enumerate(("one", "two"), 1):
            done = me.uml("boot", "-d", "--name", name, "--init", "", "mem=64M", f"eth0=daemon,,unix,{control}")
            said = b"uml: eth0=daemon: a card of old, which the guest has as a vec card of that name\n"
            assert (done.returncode, done.stderr) == (0, said)
            me.ok("exec", name, "--", "sh", "-c", f"ip addr add 10.5.0.{number}/24 dev eth0; ip link set eth0 up")
        assert reaches(me, "one", "10.5.0.2")
        for name in ("one", "two"):
            me.ok("halt", name)


def test_no_switch(me: Household) -> None:
    status, line = me.error("boot", "-d", "--init", "", "eth0=daemon,,unix,/nonexistent")
    assert (status, line) == (
        1,
        "eth0=daemon: no switch at /nonexistent: No such file or directory; start one: uml_switch -unix /nonexistent",
    )


@pytest.mark.real_root
def test_a_tap_device(me: Household) -> None:
    """Of the host's: in a network namespace, whose end of it is reached."""
    namespace = f"uml{os.getpid()}"
    ip = needs.program("ip")
    subprocess.run([ip, "netns", "add", namespace], check=True)
    inside = [ip, "netns", "exec", namespace]
    try:
        script = "ip tuntap add t0 mode tap && ip addr add 10.6.0.1/24 dev t0 && ip link set t0 up"
        subprocess.run([*inside, "sh", "-c", script], check=True)
        words = me.command("boot", "-d", "--name", "it", "--init", "", "mem=64M", "vec0:transport=tap,ifname=t0,gro=1")
        done = subprocess.run([*inside, *words], capture_output=True, check=False, stdin=subprocess.DEVNULL)
        assert done.returncode == 0, done.stderr
        me.ok("exec", "it", "--", "sh", "-c", "ip addr add 10.6.0.2/24 dev vec0; ip link set vec0 up")
        assert reaches(me, "it", "10.6.0.1")
        me.ok("halt", "it")
    finally:
        subprocess.run([ip, "netns", "del", namespace], check=True)


def test_a_descriptor_of_the_callers(me: Household) -> None:
    """The kernel has the socket that `uml boot` was started with: a frame of the guest's comes out of it."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    word = f"vec0:transport=fd,fd={far.fileno()}"
    with near, far:
        assert me.error("boot", "-d", "--init", "", word)[1].startswith(
            f"{word}: descriptor {far.fileno()} was not given to this command; leave a socket"
        )
        words = me.command("boot", "-d", "--name", "it", "--init", "", "mem=64M", word)
        subprocess.run(words, check=True, stdin=subprocess.DEVNULL, pass_fds=[far.fileno()], stdout=subprocess.DEVNULL)
        me.ok("exec", "it", "--", "ip", "link", "set", "vec0", "up", "address", "02:00:00:00:00:07")
        me.ok(
            "exec",
            "it",
            "--",
            "sh",
            "-c",
            "ip addr add 10.7.0.1/24 dev vec0; ! busybox arping -I vec0 -c 1 -w 1 10.7.0.2 >/dev/null",
        )
        near.settimeout(30)
        while bytes.fromhex("0806") != (frame := near.recv(2048))[12:14]:
            pass
        assert frame[6:12] == bytes.fromhex("020000000007")
        me.ok("halt", "it")


def test_128_cards(me: Household) -> None:
    """96 on the command line, the others while the machine runs; one goes and comes again."""
    with contextlib.ExitStack() as stack:
        pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(128)]
        for near, far in pairs:
            stack.enter_context(near)
            stack.enter_context(far)
        numbers = [far.fileno() for _, far in pairs]
        cards = [f"vec{unit}:transport=fd,fd={number}" for unit, number in enumerate(numbers)]
        late = [word for number in numbers[96:] for word in ("--pass-fd", str(number))]
        words = me.command("boot", "-d", "--name", "it", "--init", "", "mem=64M", *late, *cards[:96])
        subprocess.run(words, check=True, stdin=subprocess.DEVNULL, pass_fds=numbers, stdout=subprocess.DEVNULL)
        socket_path = me.machines / "it" / "mconsole"
        for card in cards[96:]:
            assert ask(socket_path, f"config {card}") == (0, "")
        assert me.ok("exec", "it", "--", "sh", "-c", "ls -d /sys/class/net/vec* | wc -l") == "128\n"
        assert ask(socket_path, "remove vec127").err == 0
        assert ask(socket_path, f"config {cards[127]}") == (0, "")
        for word, what in (
            ("vec200:transport=fd,fd=9999", "the kernel's jail does not show it what it was not booted with"),
            ("vec200:transport=bess,dst=/tmp/x", "the kernel's jail does not show it"),
            ("vec200:transport=fd,fd=9,src_port=1", "no option 'src_port'"),
        ):
            reply = ask(socket_path, f"config {word}")
            assert reply.err
            assert what in reply.text
        me.ok("halt", "it")
