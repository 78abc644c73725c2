"""`uml net`: machines on a network of their own."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from runtime.network import lab
from tests import needs
from tests.guest import caller
from tests.machines.household import BOUND, Household
from tests.network.servers import free_port, heard

FLOOD = Path(__file__).parents[1] / "network/flood.py"
REACHED = "busybox ping -c 1 -W 2 {} >/dev/null && echo yes || echo no"


eventually = partial(caller.eventually, seconds=BOUND)


def reaches(uml: Household, machine: str, target: str) -> bool:
    return uml.ok("exec", machine, "--", "sh", "-c", REACHED.format(target)) == "yes\n"


def port(uml: Household, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(uml.ok("net", "inspect", "lab"))
    return next(each for each in found["ports"] if each["name"] == name)


@pytest.mark.guest
def test_a_network(ordinary: Household) -> None:
    """Of an ordinary user: names, a cable pulled, a capture, a late machine with a bad link, and its end."""
    uml = ordinary
    assert uml.ok("net", "create", "lab", "--subnet", "10.77.0.0/24", "--internal") == "10.77.0.0/24\n"
    uml.ok("net", "create", "two", "--subnet", "10.76.0.0/24", "--internal")
    uml.ok("boot", "-d", "--name", "web", "--init", "", "--net", "lab", "mem=64M")
    uml.ok("boot", "-d", "--name", "db", "--init", "", "--net", "two", "--net", "lab", "mem=64M")
    assert reaches(uml, "web", "db.lab")
    assert reaches(uml, "db", "web")
    networks = uml.ok("net", "ls").splitlines()
    assert networks[0] == "lab              10.77.0.0/24       internal  web db"
    on_all(uml)
    with flooded(uml, "10.77.0."):
        assert reaches(uml, "web", "db.lab")
        assert reaches(uml, "db", "web")
    capture(uml)
    uml.ok("net", "unplug", "lab", "db")
    assert not reaches(uml, "web", "db.lab")
    uml.ok("net", "plug", "lab", "db")
    assert reaches(uml, "web", "db.lab")
    slow = uml.uml("run", "--net", "lab:ip=10.77.0.50,delay=150ms", "--", "busybox", "ping", "-c", "2", "web.lab")
    assert slow.returncode == 0, slow.stderr
    assert float(slow.stdout.rpartition(b"min/avg/max = ")[2].partition(b"/")[0]) >= 300  # there and back
    assert uml.error("net", "rm", "lab") == (1, "lab: in use by web, db; end them first: uml halt")
    assert uml.error("run", "--net", f"lab:ip={port(uml, 'db')['ip']}", "--", "true")[1] == (
        f"ip={port(uml, 'db')['ip']}: another machine on lab has it; choose another"
    )
    assert uml.error("run", "--net", f"lab:mac={port(uml, 'db')['mac']}", "--", "true")[1].endswith(
        "give another: mac=…"
    )
    for name in ("web", "db"):
        uml.ok("halt", name)
    assert eventually(lambda: json.loads(uml.ok("net", "inspect", "lab"))["ports"] == [])
    for name in ("lab", "two"):
        uml.ok("net", "rm", name)
    assert uml.ok("net", "ls") == ""


def on_all(uml: Household) -> None:
    """A machine on three networks reaches a machine on two of them by both, and by its names."""
    script = f"{REACHED.format('db.two')}; {REACHED.format('db.lab')}; cat /etc/resolv.conf"
    printed = uml.ok("run", "--net", "user", "--net", "lab", "--net", "two", "--", "sh", "-c", script).splitlines()
    assert printed[:2] == ["yes", "yes"]
    assert printed[-1] == "nameserver 10.0.2.3"


@contextlib.contextmanager
def flooded(uml: Household, network: str) -> Iterator[None]:
    """A neighbour floods the network lab meanwhile."""
    with (
        FLOOD.open("rb") as script,
        subprocess.Popen(
            uml.command("run", "--net", "lab", "--mem", "64M", "--", "python3", "-", "eth0", network),
            stdin=script,
            stdout=subprocess.PIPE,
        ) as neighbour,
    ):
        try:
            assert neighbour.stdout is not None
            assert neighbour.stdout.readline() == b"flooding\n"
            yield
        finally:
            neighbour.terminate()


def capture(uml: Household) -> None:
    """What goes by is seen, by tcpdump."""
    file = uml.home / "it.pcap"
    with subprocess.Popen(uml.command("net", "capture", "lab", file)) as capturing:
        assert eventually(lambda: file.exists() and file.stat().st_size >= 24)
        assert reaches(uml, "web", "db.lab")
        assert eventually(lambda: file.stat().st_size > 200)
        capturing.terminate()
    words = [needs.program("tcpdump"), "-n", "-r", str(file), "icmp"]
    printed = subprocess.run(words, capture_output=True, text=True, check=True, timeout=BOUND).stdout
    assert "ICMP echo request" in printed


@pytest.mark.guest
def test_isolated_machines_reach_the_world_alone(me: Household) -> None:
    uml = me
    uml.ok("net", "create", "lab", "--isolated")
    for name in ("web", "db"):
        uml.ok("boot", "-d", "--name", name, "--init", "", "--net", "lab", "mem=64M")
    gateway = port(uml, "web")["ip"].rpartition(".")[0] + ".2"
    with flooded(uml, gateway[:-1]):
        assert reaches(uml, "web", gateway)
    assert not reaches(uml, "web", port(uml, "db")["ip"])
    for name in ("web", "db"):
        uml.ok("halt", name)
    assert eventually(lambda: len(json.loads(uml.ok("net", "inspect", "lab"))["ports"]) == 1)
    uml.ok("net", "rm", "lab")


def test_bad_words(me: Household) -> None:
    uml = me
    uml.ok("net", "create", "lab", "--subnet", "10.78.0.0/24")
    for words, what in (
        (("net", "create", "lab"), "lab: there is such a network"),
        (("net", "create", "two", "--subnet", "10.78.0.128/25"), "too small; /16 to /24 can be had"),
        (("net", "create", "two", "--subnet", "10.78.0.0/16"), "overlaps 10.78.0.0/24 of network lab"),
        (("net", "create", "two", "--subnet", "10.78.0.1/24"), "has host bits set"),
        (("net", "create", "user"), "'user' cannot be the name of a network"),
        (("net", "create", "two", "--internal", "--isolated"), "its machines could reach nobody"),
        (("net", "rm", "two"), "two: no such network; make it: uml net create two"),
        (("run", "--net", "two", "--", "true"), "--net two: two: no such network"),
        (("run", "--net", "lab:loss=2", "--", "true"), "--net lab:loss=2: loss=2; write it like loss=1%"),
        (("run", "--net", "lab:ip=1.2", "--", "true"), "'1.2' is not an IPv4 address"),
        (("run", "--net", "lab:ip=10.79.0.9", "--", "true"), "ip=10.79.0.9: not in 10.78.0.0/24 of lab"),
    ):
        assert what in uml.error(*words)[1]
    uml.ok("net", "rm", "lab")
    assert not list((uml.home / ".uml-net").iterdir())


@pytest.mark.guest
def test_a_way_out(ordinary: Household) -> None:
    """A port of the host leads to a machine of a network; the way out comes back, which `uml watch` tells, and so does
    the network; nothing of it is left when it is killed."""
    uml, port_ = ordinary, free_port()
    uml.ok("net", "create", "lab")
    greets = "while :; do echo hello | busybox nc -l -p 80 -w 1 >/dev/null 2>&1; done"
    published = ("-p", f"127.0.0.1:{port_}:80")
    uml.ok("boot", "-d", "--name", "web", "--init", "", "--net", "lab", *published, "mem=64M")
    with (
        running(uml.command("exec", "web", "--", "sh", "-c", greets)),
        running(uml.command("watch", "web")) as watching,
    ):
        assert eventually(lambda: heard(port_) == b"hello\n")
        own = family(network_process(uml))
        engine = next(pid for pid in own if words_of(pid)[0].endswith(b"slirp4netns"))
        os.kill(engine, signal.SIGKILL)
        assert eventually(lambda: heard(port_) == b"hello\n")
        assert uml.ok("mconsole", "web", "config", "publish").strip() == f"127.0.0.1:{port_}:80/tcp"
        uml.ok("mconsole", "web", "remove", f"publish{port_}")
        assert heard(port_) == b""
        own = family(network_process(uml))
        os.kill(own[0], signal.SIGKILL)
        assert eventually(lambda: not any(words_of(pid)[0] for pid in own))
        uml.ok("halt", "web")
        watching.terminate()
        assert watching.stdout is not None
        printed = watching.stdout.read().decode()
    assert "network lab: slirp4netns ended (killed by signal 9); it is started again" in printed
    assert "network lab is gone" in printed
    assert uml.ok("run", "--net", "lab", "--mem", "64M", "--", "echo", "there") == "there\n"
    uml.ok("net", "rm", "lab")


@pytest.mark.slow
@pytest.mark.guest
@pytest.mark.parametrize("engine", lab.ENGINES[1:])
def test_twenty_machines(me: Household, engine: str) -> None:
    """Each reaches each by its name, once the last is up."""
    uml, names = me, [f"m{number}" for number in range(20)]
    uml.ok("net", "create", "lab", "--internal", "--engine", engine)
    boot = lambda name: uml.ok("boot", "-d", "--name", name, "--init", "", "--net", "lab", "mem=48M")  # noqa: E731
    ping = "busybox ping -c 1 -W 20 $name.lab >/dev/null || echo $name"
    asks = f"for name in {' '.join(names)}; do {ping}; done"  # several at a time would take each other's answers
    with ThreadPoolExecutor(4) as several:
        list(several.map(boot, names))
        assert [*several.map(lambda name: uml.ok("exec", name, "--", "sh", "-c", asks), names)] == [""] * len(names)
    uml.ok("halt", "--now", *names)
    assert eventually(lambda: json.loads(uml.ok("net", "inspect", "lab"))["ports"] == [])
    uml.ok("net", "rm", "lab")


@contextlib.contextmanager
def running(words: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A command that goes on until the context ends."""
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.terminate()


def words_of(pid: int) -> list[bytes]:
    """The command line of a process; one empty word for one that is none any more."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return [b""]


def network_process(uml: Household) -> int:
    """The process of the network lab."""
    path = f"{uml.home}/.uml-net/lab".encode()
    return next(int(entry.name) for entry in Path("/proc").glob("[0-9]*") if path in words_of(int(entry.name)))


def family(pid: int) -> list[int]:
    """A process and all below it."""
    return [pid, *(each.pid for each in psutil.Process(pid).children(recursive=True))]


def test_a_switch_ends_when_its_directory_vanishes(me: Household) -> None:
    me.ok("net", "create", "lab", "--internal")
    me.ok("run", "--net", "lab", "--mem", "64M", "--", "true")
    path = me.home / ".uml-net" / "lab"
    assert lab.is_running(path)
    with open(path / lab.LOCK, "rb") as lock:
        shutil.rmtree(path)
        assert eventually(lambda: can_lock(lock.fileno()))


def can_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def test_dry_run_shows_networks(me: Household) -> None:
    me.ok("net", "create", "lab", "--internal")
    words = ("--net", "lab:vlan=3", "--net", "user:host=yes", "-p", "127.0.0.1:8080:80")
    printed = me.ok("run", "--dry-run", *words, "--", "true").splitlines()
    assert [line for line in printed if line.startswith("network")] == [
        "network  eth0 on network lab vlan=3",
        "network  eth1 on the internet, with this host's loopback, publishes 127.0.0.1:8080:80/tcp",
    ]
    assert not lab.is_running(me.home / ".uml-net" / "lab")
    assert me.error("run", "--net", "lab", "-p", "8080:80", "--", "true")[1].endswith(
        "network lab publishes no ports; add --net user"
    )
    me.ok("net", "rm", "lab")
