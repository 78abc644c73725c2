"""Web sites with scripts in guests: what a browser gets, and what one site's script can do to another's."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from runtime.sites import config
from runtime.sites.cgi import parse_head
from runtime.sites.exchange import BadAnswer
from umlfs.errors import UsageError
from umlfs.sources import as_source

UML = (sys.executable, "-c", "from runtime.cli import main; main()")
ROOT = Path(__file__).parents[2]

CGI = """\
#!/bin/sh
case $PATH_INFO in
/hello) printf 'Content-Type: text/plain\\nX-Site: one\\n\\n'; echo "$REQUEST_METHOD $QUERY_STRING $(whoami)" ;;
/echo) printf 'Content-Type: text/plain\\n\\n'; cat ;;
/big) printf 'Content-Type: text/plain\\n\\n'; head -c 5000000 /dev/zero ;;
/go) printf 'Location: /hello\\n\\n' ;;
/files) printf 'Content-Type: text/plain\\n\\n'; cat "$REQUEST/method" "$REQUEST/headers/x-word" "$REQUEST/url" ;;
/none) : ;;
/garbage) echo garbage; echo; ;;
/headers) yes 'X-Long: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa' ;;
/slow) sleep 1000 ;;
/bomb) head -c 300000000 /dev/zero | tail; ;;
/split) printf 'X-A: b\\rSet-Cookie: evil=1\\n\\n' ;;
esac
"""
LOOP = """\
#!/bin/sh
while read -r n </requests/next; do
    at=/requests/$n
    [ "$(cat $at/path)" = /hang ] && sleep 1000
    echo 201 >$at/response/status
    echo text/x-two >$at/response/headers/content-type
    { echo "$(cat $at/method) $(cat $at/path)"; cat $at/body; } >$at/response/body
done
"""
SITES = """\
[sites."one.example"]
files = "one"
handler = "/site/answer"
time-limit = 8
memory = 96

[sites."two.example"]
files = "two"
handler = "/site/answer"
mode = "loop"
time-limit = 8
memory = 96

[sites."three.example"]
files = "three"
handler = "/site/answer"
user = "root"
memory = 96
"""
ITSELF = """\
#!/bin/sh
printf 'Content-Type: text/plain\\n\\n'
echo "$0 $1"
[ "$1" ] || echo '/site/answer again' >/config/handler
"""


@pytest.fixture
def sites(tmp_path: Path) -> Path:
    for name, text in (("one", CGI), ("two", LOOP), ("three", ITSELF)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "answer").write_text(text)
        (tmp_path / name / "answer").chmod(0o755)
        (tmp_path / name).chmod(0o755)
    tmp_path.chmod(0o755)
    (tmp_path / "sites.toml").write_text(SITES)
    return tmp_path / "sites.toml"


@contextlib.contextmanager
def served(sites: Path, log: IO[bytes]) -> Iterator[int]:
    """The port of a server."""
    words = [*UML, "serve", "web", str(sites), "--bind", "127.0.0.1:0"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=log, env=env, text=True) as server:
        assert server.stdout is not None
        try:
            yield int(server.stdout.readline().rpartition(":")[2])
        finally:
            server.send_signal(signal.SIGTERM)
            try:
                server.wait(20)
            finally:
                server.kill()


def ask(port: int, host: str, path: str, method: str = "GET", body: bytes | None = None) -> tuple[int, bytes, str]:
    """Status, body and content type."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    with contextlib.closing(client):
        client.request(method, path, body, {"Host": host, "X-Word": "word"})
        answer = client.getresponse()
        return answer.status, answer.read(), answer.getheader("content-type", "")


@pytest.mark.guest
def test_two_sites(sites: Path, tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log, served(sites, log) as port:
        one, two = "one.example", f"two.example:{port}"
        assert ask(port, one, "/hello?a=b") == (200, b"GET a=b nobody\n", "text/plain")
        body = os.urandom(1 << 20)
        assert ask(port, one, "/echo", "POST", body)[:2] == (200, body)
        assert len(ask(port, one, "/big")[1]) == 5000000
        assert ask(port, one, "/go")[0] == 302
        assert ask(port, one, "/files?x")[1] == b"GET\nword\n/files?x\n"
        for bad in ("/none", "/garbage", "/headers", "/split"):
            assert ask(port, one, bad)[0] == 502, bad
        assert ask(port, two, "/a/b", "PUT", b"sent") == (201, b"PUT /a/b\nsent", "text/x-two")
        assert ask(port, one, "/slow")[0] == 504
        assert ask(port, two, "/hang")[0] == 504
        assert ask(port, two, "/again") == (201, b"GET /again\n", "text/x-two")
        ask(port, one, "/bomb")
        assert ask(port, two, "/still")[0] == 201
        assert ask(port, one, "/hello")[0] == 200
        assert ask(port, "three.example", "/")[1] == b"/site/answer \n"
        assert ask(port, "three.example", "/")[1] == b"/site/answer again\n", "its own settings count"
        assert ask(port, "four.example", "/")[0] == 404
    said = (tmp_path / "log").read_text()
    assert "one.example: GET /garbage" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "no sites"),
        ("x = 1", "unknown table"),
        ("[sites.a]\nfiles = '.'", "no 'handler'"),
        ("[sites.a]\nfiles = '.'\nhandler = 'x'\ncolour = 1", "unknown word 'colour'"),
        ("[sites.a]\nfiles = '.'\nhandler = 'x'\nmemory = 'much'", "wrong type"),
        ("[sites.a]\nfiles = '.'\nhandler = 'x'\nmemory = -1", "out of range"),
        ("[sites.a]\nfiles = '.'\nhandler = ''", "no command"),
        ("[sites.a]\nfiles = '.'\nhandler = 'x'\nmode = 'fast'", "known are cgi, loop"),
        ("[sites.a]\nfiles = '.'\nhandler = 'x'\nmode = 'http'", "a server has a 'socket'"),
        ("[sites.a]\nfiles = '.'\nhandler = 'x'\nsocket = '/a'", "a server has a 'socket'"),
        ("[sites.a]\nfiles = '.'\nhandler = 'x'\nsocket = '10.0.0.1:80'", "say /run/site.sock"),
        ("[sites.a]\nfiles = 'nowhere'\nhandler = 'x'", "no such file"),
        ("[sites.'A b']\nfiles = '.'\nhandler = 'x'", "not a host name"),
        ("[", "TOML"),
    ],
)
def test_words_that_mean_nothing(tmp_path: Path, text: str, what: str) -> None:
    path = tmp_path / "sites.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=what):
        config.load(path)


def test_paths_are_from_the_place_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "www").mkdir()
    path = tmp_path / "sites.toml"
    for word in ("www", "hostfs:www"):
        path.write_text(f"[sites.a]\nfiles = '{word}'\nhandler = 'x'\n")
        (site,) = config.load(path)
        assert as_source(site.files).files == (str(tmp_path / "www"),)


def test_heads() -> None:
    assert parse_head(b"Status: 404 Not here\r\nX-A: b") == (404, [(b"x-a", b"b")])
    for bad in (b"", b"x", b"Status: 99", b"Status: abc", b"a b: c", b"a: \0", b"Connection: upgrade"):
        with pytest.raises(BadAnswer):
            parse_head(bad)
