"""What `uml web` and `uml class` refuse, TLS, reading only, and images."""

from __future__ import annotations

import json
import os
import re
import ssl
import subprocess
import urllib.error
import urllib.request
from http.cookiejar import CookieJar
from pathlib import Path

import pytest

from runtime.web import server
from runtime.web.images import Images
from runtime.web.terminal import parse
from tests import needs
from tests.machines.household import Household
from tests.web.conftest import Site, served
from umlfs.errors import UmlError, UsageError


def opener(address: str, context: ssl.SSLContext | None = None) -> urllib.request.OpenerDirector:
    handlers: list[urllib.request.BaseHandler] = [urllib.request.HTTPCookieProcessor(CookieJar())]
    if context is not None:
        handlers.append(urllib.request.HTTPSHandler(context=context))
    made = urllib.request.build_opener(*handlers)
    made.open(address, timeout=120).close()
    return made


def status(made: urllib.request.OpenerDirector, url: str, data: object = None) -> int:
    origin = url.partition("/api")[0]
    request = urllib.request.Request(url, None if data is None else json.dumps(data).encode(), {"Origin": origin})
    try:
        with made.open(request, timeout=120) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return int(error.code)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--bind", "0.0.0.0:0"], "could read the token"),
        (["--bind", "x"], "no port"),
        (["--cert", "x"], "both --cert and --key"),
        (["--cert", "none.pem", "--key", "none.pem"], "cannot be read"),
        (["--images", "none"], "no such directory"),
    ],
)
def test_what_is_not_safe_is_refused(ordinary: Household, options: list[str], said: str) -> None:
    code, line = ordinary.error("web", *options)
    assert code == 2
    assert said in line


def test_root_serves_no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(UsageError, match="does not run as root"):
        server.check(server.ServerOptions())


def test_a_port_that_is_taken(site: Site) -> None:
    code, line = site.somebody.error("web", "--bind", site.origin.partition("//")[2])
    assert code == 1
    assert re.search(r"the port is taken by .* \(pid \d+\)", line)


def test_reading_only(site: Site) -> None:
    with served(site.somebody, "--images", "images", "--read-only") as address:
        made, origin = opener(address), address.partition("/?")[0]
        assert status(made, f"{origin}/api/machines") == 200
        for path, body in (
            ("/api/machines", {}),
            ("/api/machines/web/power", {"action": "halt"}),
            ("/api/machines/web/mconsole", {"request": "halt"}),
            ("/api/classes/lab", {"action": "start"}),
        ):
            assert status(made, origin + path, body) == 403, path


def test_tls(site: Site) -> None:
    home = site.somebody.home
    command = [
        needs.program("openssl"),
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=x",
    ]
    files: list[str | Path] = [
        "-keyout",
        home / "web.key",
        "-out",
        home / "web.pem",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
    ]
    subprocess.run([*command, *files], check=True, capture_output=True)
    (home / "web.key").chmod(0o644)
    with served(site.somebody, "--cert", "web.pem", "--key", "web.key") as address:
        assert address.startswith("https://127.0.0.1:")
        made = opener(address, ssl.create_default_context(cafile=home / "web.pem"))
        assert status(made, f"{address.partition('/?')[0]}/api/me") == 200


def test_bad_requests_are_answered(site: Site) -> None:
    made, origin = opener(site.address), site.origin
    expected = {
        "/api/files?image=../list.csv": 400,
        "/api/files?image=/etc/passwd": 400,
        "/api/files?image=small.img&partition=7": 400,
        "/api/files?image=small.img&partition=-1": 400,
        "/api/files?image=small.img&path=/none": 409,
        "/api/files?machine=..": 400,
        "/api/files?machine=none": 409,
        "/api/file?image=small.img&path=/etc": 400,
        "/api/download?image=small.img&path=/none": 409,
        "/api/image/map?image=small.img": 400,
        "/api/machines/none/log": 409,
        "/api/nothing": 404,
        "/static/../server.py": 404,
    }
    assert {path: status(made, origin + path) for path in expected} == expected
    bodies: list[object] = [[], {"umid": "a/b"}, {"memory": "much"}, {"root": "../x"}, {"network": "all"}, {"umid": 5}]
    for body in bodies:
        assert status(made, f"{origin}/api/machines", body) == 400, body
    assert status(made, f"{origin}/api/machines", {"umid": "web"}) == 409


def test_images_stay_in_their_directory(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "outer.img").write_bytes(bytes(4096))
    (tmp_path / "inner" / "link.img").symlink_to(tmp_path / "outer.img")
    (tmp_path / "inner" / "own.img").write_bytes(bytes(4096))
    images = Images(tmp_path / "inner")
    assert images.path("own.img") == tmp_path / "inner" / "own.img"
    for name in ("link.img", "../outer.img", str(tmp_path / "outer.img"), "none", "a\0b"):
        with pytest.raises(UmlError):
            images.path(name)


def test_nonsense_on_a_terminal() -> None:
    for message in ("", "x", "s", "s1", "s0 0", "s-1 5", "s9999 1", "s1 2 3"):
        with pytest.raises(ValueError, match=r"\A.*\Z"):
            parse(message)


def test_a_class_is_made_whole_or_not_at_all(ordinary: Household) -> None:
    (ordinary.home / "list").write_text("anna\nanna\n")
    (ordinary.home / "image").write_bytes(bytes(65536))
    create = ("class", "create", "lab", "--image", "image", "--students")
    assert "twice" in ordinary.error(*create, "list")[1]
    assert "cannot be read" in ordinary.error(*create, "none")[1]
    (ordinary.home / "list").write_text("../x\n")
    assert "cannot be the name" in ordinary.error(*create, "list")[1]
    assert ordinary.ok("class", "ls").split() == ["CLASS", "STUDENTS", "IMAGE"]
    (ordinary.home / "list").write_text("anna\n")
    ordinary.ok(*create, "list")
    assert "there is such a class" in ordinary.error(*create, "list")[1]
    assert "nobody of that name" in ordinary.error("class", "reset", "lab", "bert")[1]
    ordinary.ok("class", "remove", "lab")
    assert "no such class" in ordinary.error("class", "start", "lab")[1]
