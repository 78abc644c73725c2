"""Words of the command line, and places in a guest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from runtime.machine import parsing
from runtime.machine.equipment import HostMount
from runtime.machine.mount_points import check_places
from umlfs.errors import UsageError


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("/src=.", lambda: HostMount("/src", ".")),
        ("/src=./a=b", lambda: HostMount("/src", "./a=b")),
        ("/src=hostfs:/x:ro", lambda: HostMount("/src", "hostfs:/x", True)),
        ("/a b=c d:ro", lambda: HostMount("/a b", "c d", True)),
        ("/src=x:rw", lambda: HostMount("/src", "x")),
        ("/src=x:ro:rw", lambda: HostMount("/src", "x")),
        ("/src=.:rw", lambda: HostMount("/src", ".")),
        ("/src=x:ro:y:ro", lambda: HostMount("/src", "x:ro:y", True)),
        ("/src=x:cache=never", lambda: HostMount("/src", "x", options=(("cache", "never"),))),
        ("/src=x:ro:cache=always", lambda: HostMount("/src", "x", True, (("cache", "always"),))),
        ("/src=x:cache=auto:ro", lambda: HostMount("/src", "x", True, (("cache", "auto"),))),
        ("/src=x:cache=often", lambda: HostMount("/src", "x", options=(("cache", "often"),))),
        ("/log=x:append", lambda: HostMount("/log", "x", options=(("append", ""),))),
        ("/src=x:uid=5:gid=6:ro", lambda: HostMount("/src", "x", True, (("gid", "6"), ("uid", "5")))),
        (
            "/src=x:map=0:1000:1:map=5:7:9:squash",
            lambda: HostMount("/src", "x", options=(("squash", ""), ("map", "0:1000:1\n5:7:9"))),
        ),
        ("/src=x:hide=*.o:hide=.git", lambda: HostMount("/src", "x", options=(("hide", "*.o\n.git"),))),
        ("/src=humfs:x:atime=noatime", lambda: HostMount("/src", "humfs:x", options=(("atime", "noatime"),))),
        ("/src=nbd://host:10809/append", lambda: HostMount("/src", "nbd://host:10809/append")),
    ],
)
def test_mounts(text: str, mount: Callable[[], HostMount], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a=b", "c d", "x", "x:ro:y"):
        Path(name).mkdir()
    expected = mount()
    assert parsing.mount(text) == expected
    assert parsing.mount(str(expected)) == expected


@pytest.mark.parametrize("text", ["", "/src", "=x", "/src=", "="])
def test_no_mounts(text: str) -> None:
    with pytest.raises(UsageError, match="not of the form DIR=SRC"):
        parsing.mount(text)


def test_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRESENT", "a=b")
    monkeypatch.delenv("ABSENT", raising=False)
    given = ["A=", "B=x=y", "PRESENT", "ABSENT", "A=2"]
    assert parsing.variables(given) == {
        "A": "2",
        "B": "x=y",
        "PRESENT": "a=b",
    }
    for text in ("", "=", "1A=x", "A-B", "A\n=x", "é=x"):
        with pytest.raises(UsageError, match="is not the name of a variable"):
            parsing.variables([text])


def test_directories() -> None:
    assert parsing.directory(None) is None
    assert parsing.directory("/a b") == "/a b"
    for text in ("", ".", "a"):
        with pytest.raises(UsageError, match="not an absolute path"):
            parsing.directory(text)


def test_places() -> None:
    check_places(["/src", "/src/below", "/run/user", "/dev/shm", "/tmp", "/a/../b"])
    for place in ("", "src", ".", "/", "//", "/a/..", "/proc", "/dev/", "/run/../sys", "/run/umlfs", "/run/umlfs/x"):
        with pytest.raises(UsageError, match="not a place to mount at"):
            check_places(["/ok", place])
    with pytest.raises(UsageError, match="two things"):
        check_places(["/a/b", "/a/../a//b/"])
