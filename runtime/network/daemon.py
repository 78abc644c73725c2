"""The process of one network between machines: its switch, its names, its way out. Started by `lab.start`."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio

from runtime.host.peer_credentials import peer_of
from runtime.network import lab as labs
from runtime.network.addresses import Addresses
from runtime.network.bridge import TRUNK, UPLINK, Bridge, lacking
from runtime.network.cable import TURN, Cable
from runtime.network.lab import Lab
from runtime.network.name_server import NameServer
from runtime.network.published import Published
from runtime.network.switch import Counts, Impairment, Port, Switch
from runtime.network.tap_port import serve_tap
from runtime.network.uplink import Uplink
from runtime.process import background
from runtime.process.keeper import Keeper
from umlfs.errors import UmlError
from umlfs.wire import ethernet, names, pcap

HELLO_SECONDS: Final = 5.0
LOOK_SECONDS: Final = 2.0
"""How often to look whether the network is still there."""
CLIENTS_MAX: Final = 512
CAPTURE_MAX: Final = 4096
"""Frames that wait for a capture that does not keep up; more are not in it, which its end tells."""
SERVER_MAC: Final = bytes.fromhex("020000000003")
PACKET_MAX: Final = 1 << 17
"""Bytes of a captured packet; those within the kernel may be larger than on any wire."""
PARTING_SECONDS: Final = 2.0
"""How long a machine that has gone may be in the way of the next."""


class Daemon:
    """One network while it runs."""

    def __init__(self, path: Path, lab: Lab) -> None:
        self.path = path
        self.lab = lab
        self.switch = Switch(isolated=lab.isolated)
        self.bridge: Bridge | None = None
        self.uplink: Uplink | None = None
        self.names: NameServer | None = None
        self._members: list[Port] = []
        """Of machines."""
        self._addresses = Addresses(lab)
        self._sessions: set[socket.socket] = set()
        self._trunk = trio.Event()
        """Our switch is a port of the bridge."""
        self._needs_trunk = trio.Event()
        self._parted = trio.Event()
        """Renewed each time a machine has gone."""
        self._server = names.address_bytes(lab.address(labs.SERVER))
        self._scope = trio.CancelScope()
        self._handlers: dict[str, Callable[[socket.socket, dict[str, Any]], Any]] = {
            "attach": self._attach,
            "session": self._session,
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
                    await self._furnish(keeper, nursery)
                    ready()
                    await self._accept(listening, nursery)
            if _inode(place) == mine:
                place.unlink(missing_ok=True)

    async def _furnish(self, keeper: Keeper, nursery: trio.Nursery) -> None:
        """All that a machine finds on the network."""
        lab = self.lab
        if lab.engine == labs.BRIDGED:
            labs.require_bridge()
        if lab.wants_bridge and not lacking():
            self.bridge = bridge = Bridge(keeper, lab.mtu, f"{lab.address(labs.BRIDGE)}/{lab.network.prefixlen}")
            await bridge.start()
            upstream = None if lab.internal else lab.address(labs.SERVER)
            address, namespaces = lab.address(labs.BRIDGE), bridge.interior.namespaces
            self.names = NameServer(lab.name, address, upstream, namespaces, self._tell)
            nursery.start_soon(self.names.run)
            nursery.start_soon(self._hold_trunk, bridge)
        if not lab.internal:
            self.uplink = uplink = Uplink(lab, keeper, self._tell, self._carry_uplink, self.bridge)
            nursery.start_soon(uplink.engine.run)
            await uplink.ready()

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
                with contextlib.suppress(OSError):
                    self._answer(connection, labs.refusal(error))
            except (OSError, ValueError, KeyError, TypeError, trio.TooSlowError):
                return

    @staticmethod
    def _answer(connection: socket.socket, message: dict[str, Any]) -> None:
        connection.send(json.dumps(message).encode())

    def _tell(self, line: str) -> None:
        """Tell every machine's people."""
        for session in self._sessions:
            with contextlib.suppress(OSError):
                self._answer(session, {"tell": f"network {self.lab.name}: {line}"})

    # Ways out ---------------------------------------------------------------------------------

    async def _carry_uplink(self, connection: socket.socket) -> None:
        cable = Cable(connection)
        await self._carry(Port(UPLINK, cable.send, uplink=True), cable)

    async def _hold_trunk(self, bridge: Bridge) -> None:
        """Our switch becomes a port of the bridge when something is to hang on it."""
        await self._needs_trunk.wait()
        tap = await bridge.trunk()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(partial(serve_tap, self.switch, TRUNK, tap, uplink=True))
                self._trunk.set()
        finally:
            os.close(tap)

    async def _carry(self, port: Port, cable: Cable) -> None:
        """A port of our switch from its cable to its end."""
        self.switch.add(port)
        forward, answer = self.switch.forward, self._answer_names

        def take(frame: bytes) -> None:
            # Few frames are questions: those go to the server's address, or to everyone.
            if not port.uplink and port.plugged and (frame[0] & 1 or frame[23:24] == b"\x11") and answer(port, frame):
                return
            forward(port, frame)

        def pass_on(frame: bytes) -> None:
            forward(port, frame)

        try:
            await cable.run(pass_on if self.bridge else take)
        finally:
            self.switch.remove(port)

    def _answer_names(self, port: Port, frame: bytes) -> bool:
        reply = names.reply_to(frame, self._server, SERVER_MAC, self._lookup, alone=self.lab.internal)
        if reply is None:
            return False
        self.switch.deliver(port, reply)
        return True

    def _lookup(self, name: str, kind: int) -> bytes | None:
        machine, _, domain = name.rpartition(".")
        present = {port.name.lower(): port.address for port in self._members}
        if domain == self.lab.name:
            address = present.get(machine)
            return b"" if not machine else None if address is None else address if kind == names.TYPE_A else b""
        if name.endswith(".in-addr.arpa") and kind == names.TYPE_PTR:
            for machine, address in present.items():
                if name == f"{'.'.join(str(byte) for byte in reversed(address))}.in-addr.arpa":
                    return names.encode_name(f"{machine}.{self.lab.name}")
        return None

    # Machines ---------------------------------------------------------------------------------

    async def _attach(self, connection: socket.socket, message: dict[str, Any]) -> None:
        name, mac = str(message["name"]), ethernet.mac_bytes(message["mac"])
        await self._wait_for_predecessor(name, mac)
        address = self._addresses.of(name, str(message.get("ip", "")), [port.address for port in self._members])
        cable = Cable(connection, Impairment(*message.get("impairment", ())))
        vlan = int(message.get("vlan", 0))
        port = Port(name, cable.send, mac=mac, address=names.address_bytes(address), vlan=vlan)
        self._members.append(port)
        self._note_names()
        try:
            given = self._given(address)
            if self.bridge and message.get("namespace") and not vlan and not cable.is_impaired:
                await self._bridge(self.bridge, connection, port, given)
            else:
                await self._wait_for_trunk()
                self._answer(connection, given)
                await self._carry(port, cable)
        finally:
            self._members.remove(port)
            self._parted.set()
            self._parted = trio.Event()
            self._note_names()
            if self.uplink:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + PARTING_SECONDS):
                    await self.uplink.withdraw_all(address)

    def _given(self, address: str) -> dict[str, Any]:
        it = self.lab
        return {
            "address": f"{address}/{it.network.prefixlen}",
            "gateway": None if it.internal else it.address(labs.GATEWAY),
            "server": it.address(labs.BRIDGE if self.bridge else labs.SERVER),
            "mtu": it.mtu,
            "namespace": False,
        }

    async def _wait_for_predecessor(self, name: str, mac: bytes) -> None:
        """A machine that starts anew may be quicker than its own end. UmlError if the card is another's."""
        with trio.move_on_after(PARTING_SECONDS):
            while any(port.mac == mac and port.name == name for port in self._members):
                await self._parted.wait()
        if any(port.mac == mac for port in self._members):
            raise UmlError(f"{mac.hex(':')}: a card of that MAC address is on {self.lab.name}", "give another: mac=…")

    async def _wait_for_trunk(self) -> None:
        if self.bridge:
            self._needs_trunk.set()
            await self._trunk.wait()

    async def _bridge(self, bridge: Bridge, connection: socket.socket, port: Port, given: dict[str, Any]) -> None:
        """A machine on the bridge, until it hangs up."""
        found = await bridge.attach(port)
        self.switch.elsewhere.add(port.mac)
        try:
            socket.send_fds(connection, [json.dumps({**given, "namespace": True}).encode()], found)
            for fd in found:
                os.close(fd)
            found = ()
            await trio.lowlevel.wait_readable(connection)
        finally:
            self.switch.elsewhere.discard(port.mac)
            for fd in found:
                os.close(fd)
            with trio.CancelScope(shield=True, deadline=trio.current_time() + PARTING_SECONDS):
                await bridge.detach(port)

    def _note_names(self) -> None:
        if self.names:
            self.names.set_names({port.name.lower(): ".".join(map(str, port.address)) for port in self._members})

    async def _session(self, connection: socket.socket, message: dict[str, Any]) -> None:
        """What a machine asks while it runs, and is told."""
        guest = str(message["address"])
        self._answer(connection, {})
        self._sessions.add(connection)
        try:
            while True:
                await trio.lowlevel.wait_readable(connection)
                data = connection.recv(labs.MESSAGE_MAX)
                if not data:
                    return
                try:
                    self._answer(connection, await self._do(guest, json.loads(data)))
                except UmlError as error:
                    self._answer(connection, labs.refusal(error))
        finally:
            self._sessions.discard(connection)

    async def _do(self, guest: str, message: dict[str, Any]) -> dict[str, Any]:
        if self.uplink is None:
            raise UmlError(f"{self.lab.name} is internal: it publishes no ports", "use uml forward")
        if message["do"] == "publish":
            await self.uplink.publish(Published(**message["port"]), guest)
            return {}
        return {"done": await self.uplink.withdraw(int(message["port"]), str(message["protocol"]), guest)}

    # Of the network ---------------------------------------------------------------------------

    async def _state(self, connection: socket.socket, message: dict[str, Any]) -> None:
        if self.bridge:
            self.bridge.count()
        ports = [*self._members, *(port for port in self.switch.ports if port.name == UPLINK and port.uplink)]
        engine = labs.BRIDGED if self.bridge else labs.SWITCHED
        self._answer(connection, {"engine": engine, "ports": [_described(port) for port in ports]})

    async def _plug(self, connection: socket.socket, message: dict[str, Any]) -> None:
        found = [port for port in self._members if port.name == message["name"]]
        if not found:
            raise UmlError(
                f"{message['name']}: not on {self.lab.name}", f"'uml net inspect {self.lab.name}' lists what is"
            )
        for port in found:
            port.plugged = bool(message["plugged"])
            if self.bridge and port in self.bridge.ports.values():
                await self.bridge.plug(port, port.plugged)
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
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_cancel_at_end, connection, nursery.cancel_scope)
                nursery.start_soon(self._watch, watch)
                async for record in waiting:
                    await trio.lowlevel.wait_writable(connection)
                    with contextlib.suppress(BlockingIOError):
                        connection.send(record)
        except* OSError:
            pass

    async def _watch(self, watch: Callable[[bytes], None]) -> None:
        """Have `watch` see each frame, until cancelled."""
        if self.bridge is not None:
            await _watch_packets(await self.bridge.packets(), watch)
            return
        self.switch.watchers.append(watch)
        try:
            await trio.sleep_forever()
        finally:
            self.switch.watchers.remove(watch)


async def _watch_packets(fd: int, watch: Callable[[bytes], None]) -> None:
    with socket.socket(fileno=fd) as packets:
        packets.setblocking(False)
        while True:
            await trio.lowlevel.wait_readable(packets)
            with contextlib.suppress(BlockingIOError):
                for _ in range(TURN):
                    watch(packets.recv(PACKET_MAX))


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
