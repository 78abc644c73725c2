"""Where a guest's frames may go that may not go everywhere."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.network.allowed import allowed
from umlfs.wire.ethernet import ARP, IPV4
from umlfs.wire.unreachable import IPV6, checksum, refusal

ALLOWED = allowed(["192.0.2.0/25", "2001:db8::/32"], ["10.0.2.2", "fd00::2"])
MACS = bytes.fromhex("020000000001020000000002")


def frame(target: str, first: int = 0x45) -> bytes:
    """A packet to `target`."""
    address = ipaddress.ip_address(target).packed
    if len(address) == 4:
        return MACS + IPV4 + bytes([first]) + bytes(15) + address
    return MACS + IPV6 + bytes(24) + address


@pytest.mark.parametrize(
    ("target", "goes"),
    [
        ("192.0.2.1", True),
        ("192.0.2.128", False),
        ("10.0.2.2", True),
        ("10.0.2.4", False),
        ("255.255.255.255", False),
        ("2001:db8::1", True),
        ("2001:db9::1", False),
        ("fe80::1", True),
        ("::ffff:192.0.2.1", False),
    ],
)
def test_where_packets_go(target: str, goes: bool) -> None:
    assert ALLOWED.lets_out(frame(target)) == goes


def test_what_could_go_elsewhere_does_not() -> None:
    assert ALLOWED.lets_out(MACS + ARP + bytes(28))
    assert not ALLOWED.lets_out(frame("192.0.2.1", first=0x46))
    assert not ALLOWED.lets_out(MACS + b"\x81\x00\x00\x05" + frame("192.0.2.1")[12:])
    assert not ALLOWED.lets_out(frame("192.0.2.1")[:-1])


@given(st.binary(max_size=80))
def test_garbage_goes_nowhere(data: bytes) -> None:
    assert ALLOWED.lets_out(data) in ((True, False) if data[12:14] in (ARP, IPV4, IPV6) else (False,))


GATEWAYS = ipaddress.ip_address("10.0.2.2").packed, ipaddress.ip_address("fd00::2").packed


def test_who_sent_a_packet_is_told() -> None:
    told = refusal(frame("192.0.2.200") + bytes(20), *GATEWAYS, b"gatewa")
    assert told is not None
    assert (told[:6], told[6:12], told[12:14]) == (MACS[6:], b"gatewa", IPV4)
    assert checksum(told[14:34]) == checksum(told[34:]) == 0
    assert told[26:34] == GATEWAYS[0] + bytes(4)
    assert told[34:36] == bytes([3, 13])
    assert told[42:62] == frame("192.0.2.200")[14:]


@given(st.binary(max_size=80), st.sampled_from([IPV4, IPV6, b""]))
def test_answers_answer_no_answer(data: bytes, kind: bytes) -> None:
    """Whatever comes: no flood of answers to answers."""
    told = refusal(MACS + kind + data, *GATEWAYS, b"gatewa")
    assert told is None or refusal(told, *GATEWAYS, b"gatewa") is None
