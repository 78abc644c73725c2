"""A network between machines: what it is, where it lies on the host, and the words for both."""

from __future__ import annotations

import fcntl
import ipaddress
import json
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from runtime.host import own
from runtime.network.switch import Impairment
from umlfs.errors import UmlError, UsageError
from umlfs.host.newfile import write_new
from umlfs.host.programs import run_program

SOCKET: Final = "port"
LOCK: Final = "lock"
DESCRIPTION: Final = "network.json"
NAME_FORM: Final = re.compile(r"[a-z][a-z0-9-]{0,31}\Z")
RESERVED: Final = frozenset({"none", "user"})
MESSAGE_MAX: Final = 1 << 16
DESCRIPTORS_MAX: Final = 4
JOIN_SECONDS: Final = 5.0
"""How long a switch that does not answer may be starting or ending."""
AUTOMATIC: Final = "auto"
BRIDGED: Final = "bridge"
SWITCHED: Final = "switch"
ENGINES: Final = (AUTOMATIC, BRIDGED, SWITCHED)
FIRST: Final = 100
"""The number of the first address that machines are given. Those below are slirp4netns's: it answers DHCP, too."""
BRIDGE: Final = 1
"""Of the bridge of a network that has one, and of the name server there."""
GATEWAY: Final = 2
SERVER: Final = 3
SUBNETS: Final = [f"10.{number}.0.0/24" for number in (*range(9, 200), *range(201, 250))]
"""What is chosen from where none is named."""


@dataclass(frozen=True, slots=True)
class Lab:
    """A network, as it was made."""

    name: str
    subnet: str
    internal: bool = False
    """It leads nowhere."""
    isolated: bool = False
    """Its machines reach the world, and not each other."""
    mtu: int = 9000
    engine: str = AUTOMATIC
    """What it is to be made of: `BRIDGED`, `SWITCHED`, or what this host has."""

    @property
    def wants_bridge(self) -> bool:
        """Whether it is on a bridge where the host has that."""
        return self.engine != SWITCHED and not self.isolated

    @property
    def network(self) -> ipaddress.IPv4Network:
        return ipaddress.IPv4Network(self.subnet)

    def address(self, number: int) -> str:
        """The address of that number in the subnet."""
        return str(self.network[number])


def directory() -> Path:
    """Where this user's networks are. UmlError for somebody without a home."""
    home = os.environ.get("HOME")
    if not home:
        raise UmlError("no HOME: there is no place for networks", "set HOME")
    return Path(home) / ".uml-net"


def check_name(name: str) -> str:
    """`name`. UsageError if no network can have it: it is a domain of its machines' names, too."""
    if not NAME_FORM.match(name) or name in RESERVED:
        raise UsageError(f"'{name}' cannot be the name of a network", "use lower-case letters, digits and '-'")
    return name


def find(name: str) -> tuple[Path, Lab]:
    """The network of that name. UmlError if there is none."""
    path = directory() / check_name(name)
    try:
        return path, Lab(**json.loads((path / DESCRIPTION).read_text()))
    except (OSError, ValueError, TypeError):
        raise UmlError(f"{name}: no such network", f"make it: uml net create {name}") from None


def every() -> Iterator[tuple[Path, Lab]]:
    """All of this user's networks."""
    for path in sorted(directory().glob(f"*/{DESCRIPTION}")):
        try:
            yield find(path.parent.name)
        except UmlError:
            continue


def create(name: str, subnet: str | None, *, internal: bool, isolated: bool, mtu: int, engine: str = AUTOMATIC) -> Lab:
    """Make a network. UmlError, UsageError."""
    path = directory() / check_name(name)
    if len(os.fsencode(path / SOCKET)) > 107:
        raise UmlError(f"{path}: too long a path for sockets", "choose a shorter name")
    if (path / DESCRIPTION).exists():
        raise UmlError(f"{name}: there is such a network", f"remove it first: uml net rm {name}")
    if internal and isolated:
        raise UsageError("--internal and --isolated: its machines could reach nobody", "leave out one of them")
    if isolated and engine == BRIDGED:
        raise UsageError("--isolated and --engine bridge: a bridge sees no names that are another's", "leave out one")
    if engine == BRIDGED:
        require_bridge()
    lab = Lab(name, _subnet(subnet), internal, isolated, _mtu(mtu), engine)
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_new(str(path / DESCRIPTION), json.dumps(asdict(lab)).encode())
    return lab


def require_bridge() -> None:
    """UmlError if this host lacks what a network on a bridge needs."""
    from runtime.network.bridge import lacking  # it needs what few commands do

    if why := lacking():
        raise UmlError(f"--engine bridge: {why}", "mend that, or use --engine switch")


def _mtu(mtu: int) -> int:
    if not 576 <= mtu <= 9000:
        raise UsageError(f"--mtu {mtu}", "576 to 9000 can be had")
    return mtu


def _subnet(text: str | None) -> str:
    taken = _taken()
    if text is None:
        for candidate in SUBNETS:
            if not any(ipaddress.IPv4Network(candidate).overlaps(network) for network in taken):
                return candidate
        raise UmlError("no subnet is free", "name one: --subnet 192.168.99.0/24")
    try:
        network = ipaddress.IPv4Network(text)
    except ValueError as error:
        raise UsageError(f"--subnet {text}: {error}", "write it like 10.9.0.0/24") from None
    if not 16 <= network.prefixlen <= 24:
        raise UsageError(
            f"--subnet {text}: too {'large' if network.prefixlen < 16 else 'small'}", "/16 to /24 can be had"
        )
    for other, whose in taken.items():
        if network.overlaps(other):
            raise UmlError(f"--subnet {text}: overlaps {other} of {whose}", "choose another")
    return str(network)


def _taken() -> dict[ipaddress.IPv4Network, str]:
    """The subnets that the host and other networks have, and whose they are."""
    found = {lab.network: f"network {lab.name}" for _, lab in every()}
    try:
        rows = [line.split() for line in Path("/proc/net/route").read_text().splitlines()[1:]]
    except OSError:
        rows = []
    for row in rows:
        if row[7] == "00000000":
            continue
        address, mask = (int.from_bytes(bytes.fromhex(row[at]), "little") for at in (1, 7))
        found.setdefault(ipaddress.IPv4Network((address, mask.bit_count()), strict=False), f"this host's {row[0]}")
    return found


def remove(name: str) -> None:
    """Remove a network that no machine is on. UmlError."""
    path, _ = find(name)
    if is_running(path):
        machines = [port["name"] for port in ask(path, {"do": "state"})["ports"] if not port["uplink"]]
        if machines:
            raise UmlError(f"{name}: in use by {', '.join(machines)}", "end them first: uml halt")
        ask(path, {"do": "end"})
        _wait_for_end(path)
    shutil.rmtree(path, ignore_errors=True)


def _wait_for_end(path: Path) -> None:
    with open(path / LOCK, "rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)


def is_running(path: Path) -> bool:
    """Whether the switch of the network at `path` runs."""
    try:
        with open(path / LOCK, "rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return False
    except FileNotFoundError:
        return False
    except OSError:
        return True


def start(path: Path) -> None:
    """Start the switch of the network at `path`, if it does not run. UmlError. Blocks for half a second."""
    if is_running(path):
        return
    done = run_program(own.module("runtime.network.daemon", str(path)), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode and not is_running(path):
        said = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()
        raise UmlError(f"{path.name}: its switch does not start: {said[-1] if said else 'it said nothing'}")


def join(path: Path) -> socket.socket:
    """A connection to the switch, which is started if it does not run. Blocks. UmlError.

    A switch that is just starting, or ending since nobody is left on it, is waited for.
    """
    limit = time.monotonic() + JOIN_SECONDS
    while True:
        start(path)
        try:
            return connect(path)
        except UmlError:
            if time.monotonic() > limit:
                raise
        time.sleep(0.05)


def connect(path: Path) -> socket.socket:
    """A connection to the switch. UmlError."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        connection.connect(os.fspath(path / SOCKET))
    except OSError as error:
        connection.close()
        why = os.strerror(error.errno or 0)
        raise UmlError(f"{path.name}: its switch does not answer: {why}", "it may be starting or ending") from None
    return connection


def request(connection: socket.socket, message: dict[str, Any]) -> dict[str, Any]:
    """The answer to a request, on a connection that blocks. UmlError if it is refused."""
    try:
        connection.settimeout(10)
        connection.send(json.dumps(message).encode())
        data, found, _, _ = socket.recv_fds(connection, MESSAGE_MAX, DESCRIPTORS_MAX)
        answer = json.loads(data)
    except (OSError, ValueError) as error:
        raise UmlError(f"the network's switch does not answer: {error}") from None
    return {**checked(answer), "descriptors": found}


def refusal(error: UmlError) -> dict[str, Any]:
    """An error, as a message."""
    return {"error": error.what, "way_out": error.way_out, "status": error.status}


def checked(answer: dict[str, Any]) -> dict[str, Any]:
    """An answer. UmlError for a `refusal`."""
    if "error" in answer:
        raise UmlError(answer["error"], answer.get("way_out"), status=answer.get("status", 1))
    return answer


def ask(path: Path, message: dict[str, Any]) -> dict[str, Any]:
    """The answer of the switch to one request. UmlError."""
    with connect(path) as connection:
        return request(connection, message)


# Links ----------------------------------------------------------------------------------------

_TIME: Final = re.compile(r"(\d+(?:\.\d+)?)(us|ms|s)\Z")
_UNITS: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
_RATE: Final = re.compile(r"(\d+(?:\.\d+)?)([kMG]?)\Z")
_RATES: Final = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}
_LOSS: Final = re.compile(r"(\d+(?:\.\d+)?)%\Z")


def impairment(word: str, options: dict[str, str]) -> Impairment:
    """`delay=20ms`, `loss=1%`, `rate=10M`. UsageError."""
    delay, loss, rate = (options.get(name, "") for name in ("delay", "loss", "rate"))
    found = [_match(word, _TIME, "delay", delay, "20ms"), _match(word, _LOSS, "loss", loss, "1%")]
    speed = _match(word, _RATE, "rate", rate, "10M")
    time_, lost = found
    share = float(lost[1]) / 100 if lost else 0.0
    if share > 1:
        raise UsageError(f"--net {word}: loss={loss}", "0% to 100%")
    seconds = float(time_[1]) * _UNITS[time_[2]] if time_ else 0.0
    return Impairment(seconds, share, float(speed[1]) * _RATES[speed[2]] if speed else 0.0)


def _match(word: str, form: re.Pattern[str], name: str, text: str, example: str) -> re.Match[str] | None:
    found = form.match(text)
    if text and found is None:
        raise UsageError(f"--net {word}: {name}={text}", f"write it like {name}={example}")
    return found
