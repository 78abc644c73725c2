"""Networks beside the engines driven by hand: `python -m tests.benchmarks.network [KERNEL]`.

iperf3 for two seconds each way, each contestant in turn: `--net user` beside slirp4netns started by hand, a network of
`uml net` beside bridge and taps that root has set up by hand, Debian's uml_switch and ours. The table has Gbit/s, the
median of the rounds. It needs root.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import trio

from runtime.command import throwaway
from runtime.jail.layers import Mode
from runtime.machine.machine import Machine, Options
from runtime.network import lab
from runtime.network.contract import Network
from runtime.network.engine import appearing
from runtime.network.legacy import Daemon
from runtime.network.member import Member
from runtime.network.user import User
from runtime.tty.streams import Collector
from tests import needs
from tests.benchmarks.ratio import rounds
from tests.interop.test_uml_switch import OURS, switch
from umlfs.host.programs import Program

ROUNDS = rounds(3)
SECONDS = 2
PORT = 15201
PATH = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
SETTINGS = "ip addr add 10.0.2.100/24 dev vec0; ip link set vec0 up; "
"""What a guest on a hand-driven slirp4netns does first."""

TAPS = "--taps"
"""The argument of the process that runs where the taps are."""
BRIDGE = """\
ip link add br0 type bridge
ip link set br0 mtu 9000 up
for tap in t1 t2; do
    ip tuntap add $tap mode tap vnet_hdr
    ip link set $tap mtu 9000 master br0 up
done
"""

Contestant = Callable[[], Awaitable[float]]


def client(target: str, *, to_guest: bool) -> str:
    direction = "-R" if to_guest else ""
    return f"iperf3 -J -c {target} -p {PORT} -t {SECONDS} {direction}"


def rate(output: bytes) -> float:
    """Gbit/s, of what iperf3 says."""
    return float(json.loads(output)["end"]["sum_received"]["bits_per_second"]) / 1e9


@contextlib.contextmanager
def server() -> Iterator[None]:
    with subprocess.Popen(["iperf3", "-s", "-p", str(PORT), "-B", "127.0.0.1"], stdout=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.terminate()


async def until(condition: Callable[[], bool]) -> None:
    while True:
        if condition():
            return
        await trio.sleep(0.05)


async def ours(kernel: str | None, *, to_guest: bool) -> float:
    options = Options(networks=[User(host=True)], kernel=kernel)
    done = await throwaway.run(["sh", "-c", client("10.0.2.2", to_guest=to_guest)], options, environment=PATH)
    return rate(done.stdout)


async def by_hand(kernel: str | None, directory: Path, *, to_guest: bool) -> float:
    socket = directory / f"slirp{time.monotonic_ns()}"
    words = [needs.program("slirp4netns"), "--target-type=bess", "--mtu=9000", str(socket)]
    with Program(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            await appearing(socket)
            socket.chmod(0o777)
            options = Options(arguments=[f"vec0:transport=bess,dst={socket},mtu=9000"], kernel=kernel)
            script = SETTINGS + client("10.0.2.2", to_guest=to_guest)
            done = await throwaway.run(["sh", "-c", script], options, environment=PATH)
        finally:
            process.kill()
    return rate(done.stdout)


async def between(kernel: str | None, network: Network | None, address: str = "") -> float:
    """From one guest to another on a network, or on the taps of a bridge; `address` is the beginning of those that they
    give themselves."""
    card = "eth0" if network else "vec0"
    set_up = f"ip addr add {address}$N/24 dev {card}; ip link set {card} up; " if address else ""
    async with contextlib.AsyncExitStack() as stack:
        for name, tap in (("one", "t1"), ("two", "t2")):
            options = Options(networks=[network] if network else [], kernel=kernel, name=name)
            if network is None:
                word = f"vec0:transport=tap,ifname={tap},gro=1,mtu=9000"
                options = replace(options, arguments=[word], jail=Mode.OFF)
            machine = Machine(options)
            await stack.enter_async_context(machine)
            if name == "one":
                found = Collector(1 << 16)
                where = (
                    f"{set_up}hostname >/dev/null; ip -o -4 addr show dev {card}; exec iperf3 -s -p {PORT} >/dev/null"
                )
                machine.start(["sh", "-c", where], stdout=found, environment={**PATH, "N": "1"}, directory="/")
                await until(partial(found.data.__contains__, b"inet"))
                target = found.data.split(b"inet ")[1].split(b"/")[0].decode()
        said = Collector(1 << 20)
        script = f"{set_up}sleep 0.5; {client(target, to_guest=False)}"
        await machine.start(["sh", "-c", script], stdout=said, environment={**PATH, "N": "2"}, directory="/").wait()
    return rate(bytes(said.data))


async def on_taps(kernel: str | None) -> float:
    """Between two guests on a bridge and taps, in a network of this host's own kernel."""
    words = [sys.executable, "-m", __spec__.name, TAPS, *([kernel] if kernel else [])]
    done = await trio.run_process(
        ["unshare", "--net", "sh", "-ec", f"{BRIDGE}exec {shlex.join(words)}"],
        capture_stdout=True,
        env={**os.environ, **PATH},
    )
    return float(done.stdout)


async def measure(contestants: dict[str, Contestant]) -> None:
    found: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(ROUNDS):
        for name, run in contestants.items():
            found[name].append(await run())
    for name, rates in found.items():
        print(f"{name:<44}{statistics.median(rates):8.3f} Gbit/s", flush=True)


@contextlib.asynccontextmanager
async def network(engine: str) -> AsyncIterator[Member]:
    name = f"{engine}{os.getpid()}"
    lab.create(name, None, internal=True, isolated=False, mtu=9000, engine=engine)
    try:
        yield Member(name)
    finally:
        await trio.sleep(0.5)
        await trio.to_thread.run_sync(lab.remove, name)


async def main(kernel: str | None) -> None:
    print(f"load of this machine: {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as text, server():
        directory = Path(text)
        directory.chmod(0o755)
        await measure(
            {
                "guest to host, --net user": lambda: ours(kernel, to_guest=False),
                "guest to host, slirp4netns by hand": lambda: by_hand(kernel, directory, to_guest=False),
                "host to guest, --net user": lambda: ours(kernel, to_guest=True),
                "host to guest, slirp4netns by hand": lambda: by_hand(kernel, directory, to_guest=True),
            }
        )
        debians, own = directory / "debians", directory / "own"
        with switch([needs.program("uml_switch")], debians), switch(OURS, own):
            async with network(lab.BRIDGED) as bridged, network(lab.SWITCHED) as switched:
                await measure(
                    {
                        "guest to guest, uml net on a bridge": lambda: between(kernel, bridged),
                        "guest to guest, bridge and taps by hand": lambda: on_taps(kernel),
                        "guest to guest, uml net on our switch": lambda: between(kernel, switched),
                        "guest to guest, our uml_switch": lambda: between(kernel, Daemon(0, "", str(own)), "10.9.0."),
                        "guest to guest, Debian's uml_switch": lambda: between(
                            kernel, Daemon(0, "", str(debians)), "10.9.0."
                        ),
                    }
                )


if __name__ == "__main__":
    if sys.argv[1:2] == [TAPS]:
        print(trio.run(between, sys.argv[2] if len(sys.argv) > 2 else None, None, "10.9.0."))
    else:
        trio.run(main, sys.argv[1] if len(sys.argv) > 1 else None)
