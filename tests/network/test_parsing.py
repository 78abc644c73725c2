"""`--net` and `--publish`: what they mean, and what is said of those that mean nothing."""

from __future__ import annotations

import socket

import pytest

from runtime.network import parsing, published
from runtime.network.published import Published
from runtime.network.user import User
from umlfs.errors import UmlError, UsageError


@pytest.mark.parametrize(
    ("word", "network"),
    [
        ("none", None),
        ("user", User()),
        ("user:host=yes", User(host=True)),
        ("user:host=no,mac=02:00:00:00:00:0A", User(mac="02:00:00:00:00:0a")),
        ("user:allow=192.0.2.0/24,2001:db8::1", User(allow=["192.0.2.0/24", "2001:db8::1/128"])),
    ],
)
def test_networks(word: str, network: object) -> None:
    assert parsing.parse(word) == network


@pytest.mark.parametrize(
    ("word", "complaint"),
    [
        ("usr", "--net usr: usr: no such network; make it: uml net create usr, or use one of none, user"),
        ("USER", "--net USER: 'USER' is not a network; known are"),
        ("user:hots=yes", "--net user:hots=yes: no option 'hots'; known are"),
        ("user:host", "--net user:host: 'host' is not an option"),
        ("user:host=1", "--net user:host=1: host=1; write host=yes or host=no"),
        ("user:host=yes,host=no", "host= is there twice"),
        ("user:mac=1:2", "'1:2' is not a MAC address"),
        ("user:mac=01:00:00:00:00:01", "is not the address of one card"),
        ("none:host=yes", "no option 'host'; it takes none"),
        ("user:allow=example.org", "allow=example.org: 'example.org' does not appear to be an IPv4 or IPv6 network"),
        ("user:allow=192.0.2.1/24", "192.0.2.1/24 has host bits set; write it like allow=192.168.7.0/24,10.1.2.3"),
        ("", "'' is not a network"),
    ],
)
def test_words_that_mean_nothing(word: str, complaint: str) -> None:
    with pytest.raises(UsageError) as caught:
        parsing.parse(word)
    assert complaint in str(caught.value)


def test_what_is_no_option_of_its_own_belongs_to_the_one_before() -> None:
    assert parsing.split("user:allow=10.0.0.0/8,fd00::/8,host=no") == (
        "user",
        {"allow": "10.0.0.0/8,fd00::/8", "host": "no"},
    )


@pytest.mark.parametrize(
    ("word", "port"),
    [
        ("8080:80", Published(8080, 80)),
        ("127.0.0.1:8080:80/udp", Published(8080, 80, "127.0.0.1", "udp")),
        ("localhost:1:2", Published(1, 2, "127.0.0.1")),
        ("[::1]:8080:80", Published(8080, 80, "::1")),
    ],
)
def test_published(word: str, port: Published) -> None:
    assert published.parse(word) == port


@pytest.mark.parametrize("word", ["80", "a:b", "8080:80/sctp", "0:80", "8080:65536", "host.example:1:2", "1:2:3:4"])
def test_ports_that_are_none(word: str) -> None:
    with pytest.raises(UsageError, match="--publish"):
        published.parse(word)


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UmlError, match=f"127.0.0.1 port {port} is taken by this process .*; choose another port"):
            published.check_free(Published(port, 80, "127.0.0.1"))


@pytest.mark.parametrize(
    ("nets", "ports", "complaint"),
    [
        ([], ["8080:80"], "the machine has no network for it; add --net user"),
        (["none"], ["8080:80"], "the machine has no network for it"),
        (["none", "user"], [], "--net none and others"),
        (["user"], ["8080:80", "8080:81"], "port 8080 is there twice"),
        (["user:mac=02:00:00:00:00:01", "user:mac=02:00:00:00:00:01"], [], "is there twice"),
    ],
)
def test_combinations_that_mean_nothing(nets: list[str], ports: list[str], complaint: str) -> None:
    with pytest.raises(UsageError) as caught:
        parsing.networks(nets, ports)
    assert complaint in str(caught.value)


def test_tcp_and_udp_may_have_one_number() -> None:
    (network,) = parsing.networks(["user"], ["8080:80", "8080:80/udp"])
    assert isinstance(network, User)
    assert [port.protocol for port in network.published] == ["tcp", "udp"]
