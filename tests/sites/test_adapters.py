"""Sites within web servers of others."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
import wsgiref.simple_server
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.sites.adapters import Wsgi, scope_of
from tests.sites.test_sites import ROOT, ask

pytestmark = pytest.mark.guest

SCRIPT = """\
#!/bin/sh
printf 'Status: 201 Made\\nContent-Type: text/plain\\n\\n'
echo "$REQUEST_METHOD $PATH_INFO $QUERY_STRING $HTTP_X_WORD"
cat || echo cut
"""
ASGI = """
import asyncio, sys, trio
import hypercorn.asyncio, hypercorn.trio
from hypercorn.config import Config
from runtime.sites.adapters import Asgi

config = Config()
config.bind = ["127.0.0.1:0"]
config.accesslog = None
config.errorlog = "-"

async def asyncio_main():
    await hypercorn.asyncio.serve(Asgi(sys.argv[2]), config)

async def trio_main():
    await hypercorn.trio.serve(Asgi(sys.argv[2]), config)

asyncio.run(asyncio_main()) if sys.argv[1] == "asyncio" else trio.run(trio_main)
"""


@pytest.fixture
def sites(tmp_path: Path) -> Path:
    (tmp_path / "one").mkdir()
    (tmp_path / "one/answer").write_text(SCRIPT)
    (tmp_path / "one/answer").chmod(0o755)
    tmp_path.chmod(0o755)
    words = "files = 'one'\nhandler = '/site/answer'\nmemory = 64\n"
    (tmp_path / "sites.toml").write_text(f"[sites.'one.example']\n{words}")
    return tmp_path / "sites.toml"


@pytest.fixture
def wsgi(sites: Path) -> Iterator[int]:
    """The port of a WSGI server."""

    class Quiet(wsgiref.simple_server.WSGIRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    application = Wsgi(sites)
    server = wsgiref.simple_server.make_server("127.0.0.1", 0, application, handler_class=Quiet)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()
    application.close()


def check(port: int) -> None:
    body = os.urandom(200_000)
    assert ask(port, "one.example", "/a%20b?c=d", "POST", body)[:2] == (201, b"POST /a%20b c=d word\n" + body)
    assert ask(port, "two.example", "/")[0] == 404


def test_wsgi(wsgi: int) -> None:
    check(wsgi)


@pytest.mark.parametrize("library", ["asyncio", "trio"])
def test_asgi(library: str, sites: Path) -> None:
    words = [sys.executable, "-c", ASGI, library, str(sites)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(words, env=env, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        try:
            line = next(line for line in server.stderr if "Running on" in line)
            check(int(line.split("127.0.0.1:")[1].split()[0]))
        finally:
            server.terminate()
            server.stderr.read()
    assert not [name for name in os.listdir("/proc") if name.isdigit() and _is_guest(name, server.pid)]


def _is_guest(pid: str, parent: int) -> bool:
    try:
        return f"PPid:\t{parent}\n" in Path("/proc", pid, "status").read_text()
    except OSError:
        return False


@pytest.mark.parametrize("cut", [False, True])
def test_a_body_without_a_length_and_one_that_is_cut(sites: Path, cut: bool) -> None:
    """The first is whole. To read the second is an error: the script does not take what came for all of it."""
    application = Wsgi(sites)
    environ: dict[str, object] = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/",
        "HTTP_HOST": "one.example",
        "wsgi.input": io.BytesIO(b"body"),
    }
    environ |= {"CONTENT_LENGTH": "9"} if cut else {"wsgi.input_terminated": True}
    statuses: list[str] = []
    try:
        answer = b"".join(application(environ, lambda status, headers: statuses.append(status)))
        assert answer.endswith(b"\nbodycut\n" if cut else b"\nbody")
        assert statuses == ["201 Created"]
    finally:
        application.close()


def test_what_a_wsgi_server_tells() -> None:
    scope = scope_of(
        {
            "REQUEST_METHOD": "GET",
            "SCRIPT_NAME": "/app",
            "PATH_INFO": "/caf\xc3\xa9",
            "QUERY_STRING": "q",
            "CONTENT_TYPE": "text/plain",
            "HTTP_HOST": "one.example",
            "wsgi.url_scheme": "https",
        }
    )
    assert (scope["path"], scope["raw_path"], scope["scheme"]) == ("/app/caf\u00e9", b"/app/caf%C3%A9", "https")
    assert scope["headers"] == [(b"host", b"one.example"), (b"content-type", b"text/plain")]
