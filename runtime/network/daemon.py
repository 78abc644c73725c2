"""The process of one network between machines: its switch, its names, its way out. Started by `lab.start`."""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import trio

from runtime.host.peer_credentials import peer_of
from runtime.network import lab as labs
from runtime.network import slirp
from runtime.network.cable import Cable
from runtime.network.engine import Engine, slirp_jail
from runtime.network.lab import Lab
from runtime.network.switch import Counts, Impairment, Port, Switch
from runtime.process import background
from runtime.process.keeper import Keeper
from umlfs.errors import UmlError, UsageError
from umlfs.wire import ethernet, names, pcap

HELLO_SECONDS: Final = 5.0
LOOK_SECONDS: Final = 2.0
"""How often to look whether the network is still there."""
CLIENTS_MAX: Final = 512
CAPTURE_MAX: Final = 4096
"""Frames that wait for a capture that does not keep up; more are not in it, which its end tells."""
SERVER_MAC: Final = bytes.fromhex("020000000003")
UPLINK: Final = "uplink"


class Daemon:
    """One network while it runs."""

    def __init__(self, path: Path, lab: Lab) -> None:
        self.path = path
        self.lab = lab
        self.switch = Switch(isolated=lab.isolated)
        self._addresses: dict[str, str] = {}
        """Of machines, by their names: a machine that comes again has the one that it had."""
        self._server = names.address_bytes(lab.address(labs.SERVER))
        self._scope = trio.CancelScope()
        self._handlers: dict[str, Callable[[socket.socket, dict[str, Any]], Any]] = {
            "attach": self._attach,
            "state": self._state,
            "capture": self._capture,
            "plug": self._plug,
            "end": self._end,
        }

    async def run(self, ready: Callable[[], None]) -> None:
        """Serve until told to end."""
        place = self.path / labs.SOCKET
        place.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening, Keeper() as keeper:
            listening.bind(os.fspath(place))
            os.chmod(place, 0o600)
            listening.listen(64)
            listening.setblocking(False)
            mine = _inode(place)
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._obey_signals)
                    nursery.start_soon(self._end_with_directory, place, mine)
                    if not self.lab.internal:
                        engine = self._uplink(keeper)
                        nursery.start_soon(engine.run)
                        await engine.ready()
                    ready()
                    await self._accept(listening, nursery)
            if _inode(place) == mine:
                place.unlink(missing_ok=True)

    async def _obey_signals(self) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for _ in signals:
                self._scope.cancel()

    async def _end_with_directory(self, place: Path, mine: int | None) -> None:
        """End when somebody has removed the network's directory: nobody could reach this process any more."""
        while _inode(place) == mine:  # noqa: ASYNC110 - a directory of any filesystem, and nothing that would tell
            await trio.sleep(LOOK_SECONDS)
        self._scope.cancel()

    async def _accept(self, listening: socket.socket, nursery: trio.Nursery) -> None:
        while True:
            await trio.lowlevel.wait_readable(listening)
            with contextlib.suppress(BlockingIOError):
                connection, _ = listening.accept()
                if len(nursery.child_tasks) > CLIENTS_MAX or peer_of(connection).uid not in (os.geteuid(), 0):
                    connection.close()
                else:
                    nursery.start_soon(self._serve, connection)

    async def _serve(self, connection: socket.socket) -> None:
        with connection:
            connection.setblocking(False)
            try:
                with trio.fail_after(HELLO_SECONDS):
                    await trio.lowlevel.wait_readable(connection)
                message = json.loads(connection.recv(labs.MESSAGE_MAX))
                await self._handlers[message["do"]](connection, message)
            except UmlError as error:
                answer = {"error": error.what, "way_out": error.way_out, "status": error.status}
                with contextlib.suppress(OSError):
                    connection.send(json.dumps(answer).encode())
            except (OSError, ValueError, KeyError, TypeError, trio.TooSlowError):
                return

    @staticmethod
    def _answer(connection: socket.socket, message: dict[str, Any]) -> None:
        connection.send(json.dumps(message).encode())

    # The way out ------------------------------------------------------------------------------

    def _uplink(self, keeper: Keeper) -> Engine:
        place = keeper.directory / UPLINK
        program = slirp.find()

        def command() -> list[str]:
            jail, sandbox = slirp_jail()
            cidr, mtu = f"--cidr={self.lab.subnet}", f"--mtu={self.lab.mtu}"
            options = [*sandbox, "--target-type=bess", cidr, mtu, "--disable-host-loopback"]
            return [*jail, program, *options, str(place)]

        async def started() -> None:
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
                connection.connect(os.fspath(place))
                cable = Cable(connection)
                await self._carry(Port(UPLINK, cable.send, uplink=True), cable)

        return Engine(slirp.PROGRAM, keeper, command, place, started=started, lost=_nothing, tell=_forget)

    async def _carry(self, port: Port, cable: Cable) -> None:
        """A port from its cable to its end."""
        self.switch.add(port)
        forward, answer = self.switch.forward, self._answer_names

        def take(frame: bytes) -> None:
            # Few frames are questions: those go to the server's address, or to everyone.
            if not port.uplink and port.plugged and (frame[0] & 1 or frame[23:24] == b"\x11") and answer(port, frame):
                return
            forward(port, frame)

        try:
            await cable.run(take)
        finally:
            self.switch.remove(port)

    def _answer_names(self, port: Port, frame: bytes) -> bool:
        reply = names.reply_to(frame, self._server, SERVER_MAC, self._lookup, answers_arp=self.lab.internal)
        if reply is None:
            return False
        self.switch.deliver(port, reply)
        return True

    def _lookup(self, name: str, kind: int) -> bytes | None:
        machine, _, domain = name.rpartition(".")
        present = {port.name.lower(): port.address for port in self.switch.ports if port.address}
        if domain == self.lab.name:
            address = present.get(machine)
            return b"" if not machine else None if address is None else address if kind == names.TYPE_A else b""
        if name.endswith(".in-addr.arpa") and kind == names.TYPE_PTR:
            for machine, address in present.items():
                if name == f"{'.'.join(str(byte) for byte in reversed(address))}.in-addr.arpa":
                    return names.encode_name(f"{machine}.{self.lab.name}")
        return None if not self.lab.internal or kind else b""

    # Machines ---------------------------------------------------------------------------------

    async def _attach(self, connection: socket.socket, message: dict[str, Any]) -> None:
        name, mac = str(message["name"]), ethernet.mac_bytes(message["mac"])
        if any(port.mac == mac for port in self.switch.ports):
            raise UmlError(f"{message['mac']}: a card of that MAC address is on {self.lab.name}", "give another: mac=…")
        address = self._address(name, str(message.get("ip", "")))
        cable = Cable(connection, Impairment(*message.get("impairment", ())))
        number = names.address_bytes(address)
        port = Port(name, cable.send, mac=mac, address=number, vlan=int(message.get("vlan", 0)))
        it = self.lab
        self._answer(
            connection,
            {
                "address": f"{address}/{it.network.prefixlen}",
                "gateway": None if it.internal else it.address(labs.GATEWAY),
                "server": it.address(labs.SERVER),
                "mtu": it.mtu,
            },
        )
        await self._carry(port, cable)

    def _address(self, name: str, wanted: str) -> str:
        used = {str(ipaddress.IPv4Address(port.address)) for port in self.switch.ports if port.address}
        if wanted:
            if ipaddress.IPv4Address(wanted) not in self.lab.network:
                raise UsageError(
                    f"ip={wanted}: not in {self.lab.subnet} of {self.lab.name}", "choose one of that subnet"
                )
            if wanted in (self.lab.address(number) for number in (0, labs.GATEWAY, labs.SERVER, -1)):
                raise UsageError(f"ip={wanted}: {self.lab.name} needs that itself", "choose another")
            if wanted in used:
                raise UmlError(f"ip={wanted}: another machine on {self.lab.name} has it", "choose another")
            return wanted
        kept = self._addresses.get(name)
        if kept is not None and kept not in used:
            return kept
        promised = set(self._addresses.values())
        for number in range(labs.FIRST + 1, self.lab.network.num_addresses - 1):
            address = self.lab.address(number)
            if address not in used and (address not in promised or number > 200):
                self._addresses[name] = address
                return address
        raise UmlError(f"{self.lab.name}: no address is left", "give it a larger subnet")

    async def _state(self, connection: socket.socket, message: dict[str, Any]) -> None:
        self._answer(connection, {"ports": [_described(port) for port in self.switch.ports]})

    async def _plug(self, connection: socket.socket, message: dict[str, Any]) -> None:
        found = [port for port in self.switch.ports if port.name == message["name"]]
        if not found:
            raise UmlError(
                f"{message['name']}: not on {self.lab.name}", f"'uml net inspect {self.lab.name}' lists what is"
            )
        for port in found:
            port.plugged = bool(message["plugged"])
        self._answer(connection, {})

    async def _end(self, connection: socket.socket, message: dict[str, Any]) -> None:
        self._answer(connection, {})
        self._scope.cancel()

    async def _capture(self, connection: socket.socket, message: dict[str, Any]) -> None:
        """Send what goes by as a capture, until the peer hangs up."""
        sender, waiting = trio.open_memory_channel[bytes](CAPTURE_MAX)
        lost = Counts()

        def watch(frame: bytes) -> None:
            try:
                sender.send_nowait(pcap.record(time.time_ns(), frame))
            except trio.WouldBlock:
                lost.dropped += 1

        self._answer(connection, {})
        self.switch.watchers.append(watch)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_cancel_at_end, connection, nursery.cancel_scope)
                async for record in waiting:
                    await trio.lowlevel.wait_writable(connection)
                    with contextlib.suppress(BlockingIOError):
                        connection.send(record)
        except* OSError:
            pass
        finally:
            self.switch.watchers.remove(watch)


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:
        return None


def _described(port: Port) -> dict[str, Any]:
    return {
        "name": port.name,
        "mac": port.mac.hex(":"),
        "ip": ".".join(map(str, port.address)),
        "vlan": port.vlan,
        "uplink": port.uplink,
        "plugged": port.plugged,
        **asdict(port.counts),
    }


async def _cancel_at_end(connection: socket.socket, scope: trio.CancelScope) -> None:
    await trio.lowlevel.wait_readable(connection)
    scope.cancel()


async def _nothing() -> None:
    pass


def _forget(line: str) -> None:
    pass


def main() -> int:
    """Start the network at the path in the arguments, and return when it is there."""
    path, lab = labs.find(Path(sys.argv[1]).name)

    def work(ready: Callable[[], None]) -> None:
        lock = os.open(path / labs.LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UmlError(f"{lab.name}: its switch runs already") from None
        trio.run(Daemon(path, lab).run, ready)

    try:
        background.start(work)
    except UmlError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
