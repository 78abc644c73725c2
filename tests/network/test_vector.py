"""The kernel's own words for cards: what it would drop, or fail at, is said before the boot."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from runtime.machines.description import Description
from runtime.machines.options import card_remarks
from runtime.network import filters, legacy, vector
from runtime.network.legacy import Daemon, Tap
from runtime.network.slirp import Slirp
from umlfs.errors import UsageError

L2TP = "vec0:transport=l2tpv3,src=127.0.0.1,dst=127.0.0.1,srcport=1701,dstport=1702,udp=1,rx_session=1,tx_session=2"


@pytest.mark.parametrize(
    "word",
    [L2TP, "vec1:transport=bess,dst=/tmp/x,mtu=9000", "vec7:transport=fd,fd=4", "vec0:transport=tap,ifname=lo,gro=1"],
)
def test_words_that_work(word: str) -> None:
    assert vector.parse(word, jailed=False).unit == int(word[3])


@pytest.mark.parametrize(
    ("word", "complaint"),
    [
        (
            L2TP.replace("srcport", "src_port"),
            "no option 'src_port', and the kernel would drop it; did you mean srcport=?",
        ),
        ("vec0:transport=bess,dst=a=b", "'dst=a=b' is not of the form NAME=VALUE"),
        ("vec0:transport=bess,dst", "is not of the form NAME=VALUE; the kernel would drop it"),
        ("vec0:transport=pcap,ifname=lo", "no transport 'pcap'; known are tap, raw"),
        ("vec0:ifname=lo", "no transport ''"),
        ("vec0:transport=fd,fd=4,fd=5", "an option is there twice"),
        ("vec0:transport=tap,gro=1", "no ifname="),
        ("vec0:transport=tap,ifname=none7", "this host has no interface none7; sudo ip tuntap add none7 mode tap user"),
        ("vec0:" + ",".join(f"mtu={n}" for n in range(21)), "21 options; the kernel has room for 20"),
    ],
)
def test_words_that_do_not(word: str, complaint: str) -> None:
    with pytest.raises(UsageError) as caught:
        vector.parse(word, jailed=False)
    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    "word", [L2TP, "vec0:transport=raw,ifname=lo", "vec0:transport=gre,src=127.0.0.1,dst=127.0.0.2"]
)
def test_what_a_jail_forbids(word: str) -> None:
    with pytest.raises(UsageError, match="needs this host's network, and the kernel is jailed; add --jail=off"):
        vector.parse(word, jailed=True)


@pytest.mark.parametrize(
    ("word", "network"),
    [
        ("eth0=daemon", Daemon(0)),
        ("eth1=daemon,02:00:00:00:00:01,unix,/tmp/x", Daemon(1, "02:00:00:00:00:01", "/tmp/x")),
        ("eth0=tuntap,tap3,,192.0.2.1", Tap("eth0", "tap3")),
        ("eth0=slirp,,slirp", Slirp()),
    ],
)
def test_cards_of_old(word: str, network: object) -> None:
    assert legacy.parse(word) == network


@pytest.mark.parametrize("word", ["eth0=mcast", "eth0=tuntap", "eth0=daemon,,inet,x", "eth0=", "eth0=vde,/tmp/x"])
def test_cards_that_cannot_be(word: str) -> None:
    with pytest.raises(UsageError):
        legacy.parse(word)


@pytest.mark.parametrize(
    ("word", "jailed", "remark"),
    [
        ("vec0:transport=tap,ifname=lo", False, "vec0: without gro=1 what comes from this host stalls; add it"),
        ("vec0:transport=tap,ifname=lo,gro=1", False, ""),
        ("vec0:transport=tap,ifname=lo", True, ""),
        ("vec3:transport=raw,ifname=lo", False, "vec3: without gro=1 what comes from this host stalls; add it"),
    ],
)
def test_a_missing_gro_is_told(word: str, jailed: bool, remark: str) -> None:
    jail = "auto" if jailed else "off"
    described = Description(umid="it", arguments=(word,), jail=jail)
    assert card_remarks(described) == [remark] * bool(remark)


def test_a_card_of_old_is_told_once() -> None:
    assert card_remarks(Description(umid="it", arguments=("eth0=daemon",))) == [
        "eth0=daemon: a card of old, which the guest has as a vec card of that name"
    ]


def test_a_descriptor_must_have_been_given() -> None:
    near, far = socket.socketpair()
    with near, far:
        number = far.fileno()
        with pytest.raises(UsageError, match=f"descriptor {number} was not given"):
            vector.inherited(f"vec0:transport=fd,fd={number}")
        os.set_inheritable(number, True)
        assert vector.inherited(f"vec0:transport=fd,fd={number}") == number
    for text in ("0", "2", "x", "99999999999999999999"):
        with pytest.raises(UsageError):
            vector.inherited(f"vec0:transport=fd,fd={text}")


def test_a_filter_is_compiled(tmp_path: Path) -> None:
    word = "vec0:transport=raw,ifname=lo,gro=1,bpffile=tcp port 80 and len >= 60"
    card = vector.parse(word, jailed=False)
    assert card.options["bpffile"] == "tcp port 80 and len >= 60"
    assert filters.filed(["x=1", word], tmp_path, look_only=False) == [
        "x=1",
        f"vec0:transport=raw,ifname=lo,gro=1,bpffile={tmp_path}/filter1",
    ]
    assert (tmp_path / "filter1").read_bytes()[:8] == bytes.fromhex("280000000c000000")  # ldh [12]
    existing = f"vec0:transport=raw,ifname=lo,bpffile={tmp_path}/filter1"
    assert filters.filed([existing], tmp_path, look_only=False) == [existing]
    for value, what in (("tcp prot 80", "syntax error"), (f"{tmp_path}/nothing", "cannot be read")):
        with pytest.raises(UsageError, match=what):
            vector.parse(f"vec0:transport=raw,ifname=lo,bpffile={value}", jailed=False)
