"""Every transport of the kernel's own words, with a real other end, in a network of the test's own."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.kernels.features import features
from runtime.kernels.kernel import find_kernel
from tests import needs
from tests.guest.caller import eventually
from tests.machines.household import BOUND, Household

pytestmark = pytest.mark.guest

L2TP = "transport=l2tpv3,src=127.0.0.1,dst=127.0.0.1,udp=1"
HERE = """\
ip link set lo up; ip route add 239.0.0.0/8 dev lo
ip link add h0 type veth peer name h1; ip link set h0 up; ip link set h1 up; ip addr add 10.60.0.1/24 dev h1
ip tuntap add y0 mode tap; ip addr add 10.61.0.1/24 dev y0; ip link set y0 up
"""
PAIR = """\
ip netns add far{number}; ip link set {far} netns far{number}
ip -n far{number} addr add 10.50.{number}.2/24 dev {far}; ip -n far{number} link set {far} up
ip addr add 10.50.{number}.1/24 dev {near}; ip link set {near} up
"""
"""Of two cards of one guest, one goes into a network of its own: what they say to each other goes by the host."""
ASK = "busybox ping -c 1 -W 5 {} >/dev/null && echo yes || echo no\n"


@contextlib.contextmanager
def network() -> Iterator[list[str]]:
    """What to put before a command that is to run in a network of its own."""
    needs.root()
    ip, name = needs.program("ip"), f"uml-transports-{os.getpid()}"
    subprocess.run([ip, "netns", "add", name], check=True)
    inside = [ip, "netns", "exec", name]
    try:
        subprocess.run([*inside, "sh", "-e", "-c", HERE], check=True)
        yield inside
    finally:
        subprocess.run([ip, "netns", "del", name], check=True)


@contextlib.contextmanager
def vde_switch(inside: list[str], path: Path) -> Iterator[str]:
    """A switch of vde2; where it listens."""
    needs.program("vde_plug")  # The kernel runs it.
    words = [*inside, needs.program("vde_switch"), "-s", str(path), "-x"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        try:
            assert eventually((path / "ctl").exists), "the switch does not listen"
            yield str(path)
        finally:
            process.terminate()


def boot(uml: Household, inside: list[str], *words: str) -> None:
    command = [*inside, *uml.command("boot", "-d", "--name", "it", "--init", "", "--jail=off", "mem=64M", *words)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=BOUND)
    assert done.returncode == 0, done.stderr


def old_cards(vde: str) -> list[str]:
    """The words of the old network devices that this kernel has, two for each transport."""
    words = [
        *(f"eth{number}=mcast,,239.192.168.1,1102,1" for number in (0, 1)),
        *("eth2=ucast,,127.0.0.1,1200,1201", "eth3=ucast,,127.0.0.1,1201,1200"),
        *(f"eth{number}=vde,{vde}" for number in (4, 5)),
    ]
    return [word for word in words if has_old(word.partition("=")[2].partition(",")[0])]


def old_pairs() -> list[tuple[str, str]]:
    names = [word.partition("=")[0] for word in old_cards("")]
    return list(zip(names[::2], names[1::2], strict=True))


def has_old(transport: str) -> bool:
    """Whether this kernel does: Debian 13's is built without most, and the newest have none."""
    known = features(find_kernel())
    return known.knows("eth") and known.has_transport(transport)


def test_every_transport(me: Household) -> None:
    with network() as inside, vde_switch(inside, me.home / "vde") as vde:
        boot(
            me,
            inside,
            f"vec0:{L2TP},srcport=1701,dstport=1702,rx_cookie=1,tx_cookie=2,rx_session=1,tx_session=2",
            f"vec1:{L2TP},srcport=1702,dstport=1701,rx_cookie=2,tx_cookie=1,rx_session=2,tx_session=1",
            "vec2:transport=gre,src=127.0.0.1,dst=127.0.0.2,rx_key=7,tx_key=8",
            "vec3:transport=gre,src=127.0.0.2,dst=127.0.0.1,rx_key=8,tx_key=7",
            "vec4:transport=raw,ifname=h0,gro=1,bpffile=arp or icmp",
            "vec5:transport=hybrid,ifname=y0,gro=1",
            *old_cards(vde),
        )
        pairs = [("vec0", "vec1"), ("vec2", "vec3"), *old_pairs()]
        script = "".join(PAIR.format(number=number, near=near, far=far) for number, (near, far) in enumerate(pairs))
        for card, subnet in (("vec4", 60), ("vec5", 61)):
            script += f"ip addr add 10.{subnet}.0.2/24 dev {card}; ip link set {card} up\n"
        script += "".join(ASK.format(f"10.50.{number}.2") for number in range(len(pairs)))
        script += ASK.format("10.60.0.1") + ASK.format("10.61.0.1")
        assert me.ok("exec", "it", "--", "sh", "-c", script).split() == ["yes"] * (len(pairs) + 2)
        counts = ["sh", "-c", "grep ^Udp: /proc/net/snmp"]
        before = me.ok("exec", "it", "--", *counts)
        send = "import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('10.60.0.2', 9))"
        subprocess.run([*inside, sys.executable, "-W", "ignore", "-c", send], check=True)
        assert me.ok("exec", "it", "--", *counts) == before  # the filter let it not in
        me.ok("halt", "it")
