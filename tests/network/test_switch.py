"""The learning switch, without a socket."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runtime.network.switch import ADDRESSES_MAX, FRAME_MAX, LIFETIME_SECONDS, Impairment, Port, Switch
from umlfs.wire.ethernet import ARP, BROADCAST, IPV4, parse, tagged


def mac(number: int) -> bytes:
    return bytes([2, 0, 0]) + number.to_bytes(3, "big")


def frame(target: bytes, source: bytes, kind: bytes = IPV4, rest: bytes = bytes(40)) -> bytes:
    return target + source + kind + rest


class Net:
    """A switch, and what each port was sent."""

    def __init__(self, count: int, *, hub: bool = False, isolated: bool = False) -> None:
        self.time = 0.0
        self.switch = Switch(hub=hub, isolated=isolated, clock=lambda: self.time)
        self.got: list[list[bytes]] = [[] for _ in range(count)]
        self.ports = [self.port(number) for number in range(count)]

    def port(self, number: int) -> Port:
        def send(data: bytes) -> bool:
            self.got[number].append(data)
            return True

        port = Port(str(number), send)
        self.switch.add(port)
        return port

    def say(self, number: int, data: bytes) -> list[int]:
        """The ports that get what port `number` says."""
        before = [len(each) for each in self.got]
        self.switch.forward(self.ports[number], data)
        return [at for at, each in enumerate(self.got) if len(each) > before[at]]


def test_learning() -> None:
    net = Net(3)
    assert net.say(0, frame(mac(1), mac(0))) == [1, 2]
    assert net.say(1, frame(mac(0), mac(1))) == [0]
    assert net.say(0, frame(mac(1), mac(0))) == [1]
    assert net.say(0, frame(BROADCAST, mac(0))) == [1, 2]
    assert net.say(2, frame(mac(0), mac(0))) == []  # who moved is where it spoke last
    net.time = LIFETIME_SECONDS + 1
    assert net.say(0, frame(mac(1), mac(0))) == [1, 2]


def test_a_hub() -> None:
    net = Net(3, hub=True)
    net.say(1, frame(mac(0), mac(1)))
    assert net.say(0, frame(mac(1), mac(0))) == [1, 2]


def test_vlans() -> None:
    """Ports 0 and 1 are of VLAN 5, 2 of VLAN 6; 3 carries all."""
    net = Net(4)
    for port, vlan in zip(net.ports, (5, 5, 6, 0), strict=True):
        port.vlan = vlan
    plain = frame(BROADCAST, mac(0))
    assert net.say(0, plain) == [1, 3]
    assert net.got[1] == [plain]
    assert net.got[3] == [tagged(plain, 5)]
    assert net.say(3, tagged(frame(mac(9), mac(3)), 6)) == [2]
    assert parse(net.got[2][0]).vlan == 0
    assert net.say(0, tagged(plain, 6)) == []  # no way into another's VLAN
    assert net.ports[0].counts.refused == 1


def test_nobody_takes_a_neighbours_address() -> None:
    net = Net(2)
    for number, port in enumerate(net.ports):
        port.mac = mac(number)
    assert net.say(0, frame(BROADCAST, mac(1))) == []
    assert net.say(0, frame(BROADCAST, mac(7))) == [1]  # a bridge in the guest
    assert net.ports[0].counts.refused == 1


def test_isolated() -> None:
    """Only the uplink is reached, and only in one's own name."""
    net = Net(3, isolated=True)
    net.ports[2].uplink = True
    for number, port in enumerate(net.ports[:2]):
        port.mac, port.address = mac(number), bytes([10, 0, 0, number])
    packet = bytes(12) + bytes([10, 0, 0, 0]) + bytes(24)
    assert net.say(0, frame(BROADCAST, mac(0), rest=packet)) == [2]
    assert net.say(2, frame(mac(0), mac(2))) == [0]
    assert net.say(0, frame(mac(1), mac(0), rest=packet)) == [2]
    assert net.say(0, frame(BROADCAST, mac(0), rest=bytes(12) + bytes([10, 0, 0, 1]) + bytes(24))) == []
    assert net.say(0, frame(BROADCAST, mac(7), rest=packet)) == []
    liar = bytes(8) + mac(0) + bytes([10, 0, 0, 1]) + bytes(20)
    assert net.say(0, frame(BROADCAST, mac(0), ARP, liar)) == []


def test_a_cable_is_pulled() -> None:
    net = Net(2)
    net.ports[1].plugged = False
    assert net.say(0, frame(BROADCAST, mac(0))) == []
    assert net.say(1, frame(BROADCAST, mac(1))) == []
    assert [port.counts.dropped for port in net.ports] == [0, 2]


def test_a_port_that_is_gone_is_forgotten() -> None:
    net = Net(3)
    net.say(1, frame(BROADCAST, mac(1)))
    net.switch.remove(net.ports[1])
    assert net.say(0, frame(mac(1), mac(0))) == [2]


def test_a_flood_of_addresses_is_bounded() -> None:
    net = Net(2)
    for number in range(ADDRESSES_MAX + 100):
        net.switch.forward(net.ports[0], frame(BROADCAST, mac(number)))
    assert len(net.switch._learned) == ADDRESSES_MAX
    net.time = LIFETIME_SECONDS + 1
    net.say(1, frame(BROADCAST, mac(1 << 20)))
    assert len(net.switch._learned) == 1


def test_giants_and_runts() -> None:
    net = Net(2)
    for data in (b"", bytes(13), frame(BROADCAST, mac(0), rest=bytes(FRAME_MAX))):
        assert net.say(0, data) == []
    assert net.ports[0].counts.refused == 3


@given(st.lists(st.tuples(st.integers(0, 3), st.binary(max_size=80)), max_size=30))
def test_any_bytes(said: list[tuple[int, bytes]]) -> None:
    """Nothing fails, nothing goes back where it came from, and every frame is counted."""
    net = Net(4)
    net.ports[1].vlan = 3
    for number, data in said:
        assert number not in net.say(number, data)
    counts = [port.counts for port in net.ports]
    assert sum(each.received + each.refused for each in counts) >= len(said)
    assert [each.sent for each in counts] == [len(got) for got in net.got]


def test_losses() -> None:
    assert Impairment(loss=1.0).loses()
    assert not Impairment().loses()
