"""Sites with a server of their own in the guest: HTTP and FastCGI over a socket."""

from __future__ import annotations

import http.client
import os
import struct
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest
import trio

from runtime.sites import fastcgi_wire
from runtime.sites.exchange import Body, Exchange, HttpRequest
from runtime.sites.fastcgi_server import FastCgiServer
from runtime.sites.fastcgi_wire import FormatError, Kind, Parser, record
from runtime.sites.http_server import HttpServer
from tests.sites.test_sites import ask, served

SERVER = f"""\
#!{sys.executable}
import os, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/crash":
            os._exit(1)
        if self.path == "/half":
            self.wfile.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 100\\r\\n\\r\\nhalf")
            self.close_connection = True
            return
        if self.path == "/garbage":
            self.wfile.write(b"x" * 1000000)
            self.close_connection = True
            return
        self.answer(f"{{self.command}} {{self.path}} {{self.headers['X-Forwarded-For']}} {{os.getuid()}}".encode())

    do_HEAD = do_GET

    def do_POST(self):
        self.answer(self.rfile.read(int(self.headers["Content-Length"])))

    def answer(self, body):
        self.send_response(203)
        for value in ("a=1", "b=2"):
            self.send_header("Set-Cookie", value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

ThreadingHTTPServer(("127.0.0.1", 8000), Handler).serve_forever()
"""


@pytest.mark.guest
def test_a_server_in_the_guest(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir(mode=0o755)
    tmp_path.chmod(0o755)
    (site / "server").write_text(SERVER)
    (site / "server").chmod(0o755)
    words = 'files = "site"\nhandler = "/site/server"\nmode = "http"\nsocket = "127.0.0.1:8000"\nuser = "root"\n'
    (tmp_path / "sites.toml").write_text(f'[sites."web.example"]\n{words}memory = 128\ntime-limit = 30\n')
    host = "web.example"
    with (tmp_path / "log").open("wb") as log, served(tmp_path / "sites.toml", log) as port:
        assert ask(port, host, "/a?b=c")[:2] == (203, b"GET /a?b=c 127.0.0.1 0")
        body = os.urandom(1 << 20)
        assert ask(port, host, "/", "POST", body)[:2] == (203, body)
        assert ask(port, host, "/", "HEAD")[:2] == (203, b"")
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as client:
            client.request("GET", "/", headers={"Host": host})
            assert client.getresponse().headers.get_all("set-cookie") == ["a=1", "b=2"]
        assert ask(port, host, "/garbage")[0] == 502
        with pytest.raises((http.client.HTTPException, ConnectionError)):
            ask(port, host, "/half")
        assert ask(port, host, "/crash")[0] == 502
        assert ask(port, host, "/again")[0] == 203, "it is started again"
    assert "Traceback" not in (tmp_path / "log").read_text()


def exchange(pieces: Sequence[bytes] = (b"",), method: str = "GET") -> Exchange:
    messages = [{"type": "http.request", "body": each, "more_body": True} for each in pieces[:-1]]
    messages.append({"type": "http.request", "body": pieces[-1], "more_body": False})

    async def receive() -> object:
        return messages.pop(0)

    headers = [(b"host", b"h"), (b"cookie", b"c" * 200)]
    return Exchange(1, HttpRequest(method, "/a", b"q", headers, "1.2.3.4", "h", False, Body(receive)))


async def sent(server: HttpServer | FastCgiServer) -> bytes:
    found = b""
    while data := await server.read(100):
        found += data
    return found


async def answered(it: Exchange, server: HttpServer | FastCgiServer, data: bytes) -> bytes:
    """The body of the answer that `data` is, which comes byte by byte."""
    found = b""

    async def write() -> None:
        try:
            for byte in data:
                await server.write(bytes([byte]))
        except OSError:
            pass
        server.close()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        async for piece in it.pieces:
            found += piece
    return found


async def test_http() -> None:
    it = exchange((b"one", b"two"), "POST")
    server = HttpServer(it)
    head, _, body = (await sent(server)).partition(b"\r\n\r\n")
    assert head.lower().startswith(b"post /a?q http/1.1\r\nhost: h\r\n")
    assert body == b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"
    said = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 No\r\nX-A: b\r\nConnection: close\r\n\r\nnone"
    assert await answered(it, server, said) == b"none"
    assert (it.status, it.headers, it.broken) == (404, {b"x-a": b"b"}, False)


@pytest.mark.parametrize("said", [b"", b"garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"])
async def test_no_http(said: bytes) -> None:
    it = exchange()
    await answered(it, HttpServer(it), said)
    assert it.broken


async def test_fastcgi() -> None:
    it = exchange((b"x" * 150,), "POST")
    server = FastCgiServer(it, "site")
    records = list(Parser().feed(await sent(server)))
    assert records[0] == (Kind.BEGIN_REQUEST, b"\0\1\0\0\0\0\0\0")
    params = b"".join(content for kind, content in records if kind == Kind.PARAMS)
    assert b"\x0e\x04REQUEST_METHODPOST" in params
    assert b"\x0b" + struct.pack(">I", 200 | 1 << 31) + b"HTTP_COOKIEccc" in params
    assert b"\x0f\x07SCRIPT_FILENAME/site/a" in params
    assert b"".join(content for kind, content in records if kind == Kind.STDIN) == b"x" * 150
    assert records[-1] == (Kind.STDIN, b"")
    said = record(Kind.STDOUT, b"Status: 201 Made\r\nX-A: b\r\n\r\nbo") + record(Kind.STDERR, b"a warning")
    said += record(Kind.STDOUT, b"dy") + record(Kind.STDOUT) + record(Kind.END_REQUEST, bytes(8))
    assert await answered(it, server, said) == b"body"
    assert (it.status, it.headers, it.broken) == (201, {b"x-a": b"b"}, False)


@pytest.mark.parametrize("said", [b"", b"garbage!", record(Kind.STDOUT, b"X: a\n\nhalf"), record(Kind.END_REQUEST)])
async def test_no_fastcgi(said: bytes) -> None:
    it = exchange()
    await answered(it, FastCgiServer(it, "site"), said)
    assert it.broken


def test_records() -> None:
    assert list(Parser().feed(b"\1\6\0\1\0\2\3\0okPAD\1")) == [(Kind.STDOUT, b"ok")]
    with pytest.raises(FormatError):
        list(Parser().feed(bytes(8)))
    text = b"".join(content for _, content in Parser().feed(fastcgi_wire.begin({b"A": b"b" * 200000})))
    assert len(text) == 8 + 1 + 4 + 1 + 200000
