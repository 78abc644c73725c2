"""`uml forward`, `uml proxy`, `uml ssh`: into a machine that has no network."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Iterator

import pytest

from runtime.machines.forwarding import Forward, Target, parse, target
from tests.machines.household import BOUND, Household
from umlfs.errors import UsageError

SERVER = "mkdir -p /tmp/www; echo hello >/tmp/www/it; setsid busybox httpd -p 127.0.0.1:80 -h /tmp/www"
GET = b"GET /it HTTP/1.0\r\n\r\n"


@pytest.mark.parametrize(
    ("word", "forward"),
    [
        ("80", Forward("127.0.0.1", 80, Target(80))),
        ("8080:80", Forward("127.0.0.1", 8080, Target(80))),
        ("0:80", Forward("127.0.0.1", 0, Target(80))),
        ("127.0.0.2:8080:80", Forward("127.0.0.2", 8080, Target(80))),
        ("8080:db.lab:80", Forward("127.0.0.1", 8080, Target(80, "db.lab"))),
        ("[::1]:8080:[fd00::1]:80", Forward("::1", 8080, Target(80, "fd00::1"))),
    ],
)
def test_words(word: str, forward: Forward) -> None:
    assert parse(word) == forward


@pytest.mark.parametrize("word", ["", "a", "80:", ":80", "80:0", "70000:80", "1:2:3:4:5", "80:host"])
def test_words_that_mean_nothing(word: str) -> None:
    with pytest.raises(UsageError):
        parse(word)


def test_targets() -> None:
    assert target("22") == Target(22)
    assert target("[fd00::1]:22") == Target(22, "fd00::1")


@contextlib.contextmanager
def forwarded(uml: Household, *words: str) -> Iterator[list[int]]:
    """`uml forward`; the host's ports."""
    with subprocess.Popen(uml.command("forward", "it", *words), stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        try:
            yield [int(process.stderr.readline().split()[3]) for _ in words]
        finally:
            process.terminate()


def fetch(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), BOUND) as connection:
        connection.sendall(GET)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.mark.guest
def test_without_a_network(ordinary: Household) -> None:
    uml = ordinary
    uml.ok("boot", "-d", "--name", "it", "--init", "", "--net", "none", "--ssh")
    uml.ok("exec", "it", "--", "sh", "-c", SERVER)
    assert uml.ok("proxy", "it", "80", input=GET).endswith("\r\n\r\nhello\n")
    refused = uml.uml("proxy", "it", "81", input=b"")
    assert (refused.returncode, refused.stdout) == (1, b"")
    assert b"Connection refused" in refused.stderr
    with forwarded(uml, "0:80", "0:127.0.0.1:80") as ports:
        assert [fetch(port).rpartition(b"\r\n")[2] for port in ports for _ in range(2)] == [b"hello\n"] * 4
    done = uml.uml("ssh", "it", "echo", "$HOME", input=b"")
    assert (done.returncode, done.stdout) == (0, b"/root\n"), done.stderr
    uml.ok("halt", "it")
    assert uml.error("forward", "it", "80")[1].startswith("it: no such machine is running")
