"""Words of the command line, and places in a guest."""

from __future__ import annotations

import pytest

from runtime.machine import mount_words
from runtime.machine.equipment import HostMount
from runtime.machine.mount_points import check_places
from umlfs.errors import UsageError


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("/src=.", HostMount("/src", ".")),
        ("/src=./a=b", HostMount("/src", "./a=b")),
        ("/src=hostfs:/x:ro", HostMount("/src", "hostfs:/x", True)),
        ("/a b=c d:ro", HostMount("/a b", "c d", True)),
        ("/src=x:rw", HostMount("/src", "x:rw")),
        ("/src=x:cache=never", HostMount("/src", "x", options=(("cache", "never"),))),
        ("/src=x:ro:cache=always", HostMount("/src", "x", True, (("cache", "always"),))),
        ("/src=x:cache=auto:ro", HostMount("/src", "x", True, (("cache", "auto"),))),
        ("/src=x:cache=often", HostMount("/src", "x:cache=often")),
        ("/log=x:append", HostMount("/log", "x", options=(("append", ""),))),
        ("/src=x:uid=5:gid=6:ro", HostMount("/src", "x", True, (("gid", "6"), ("uid", "5")))),
        (
            "/src=x:map=0:1000:1:map=5:7:9:squash",
            HostMount("/src", "x", options=(("squash", ""), ("map", "0:1000:1\n5:7:9"))),
        ),
        ("/src=x:hide=*.o:hide=.git", HostMount("/src", "x", options=(("hide", "*.o\n.git"),))),
        ("/src=humfs:x:atime=noatime", HostMount("/src", "humfs:x", options=(("atime", "noatime"),))),
        ("/src=nbd://host:10809/append", HostMount("/src", "nbd://host:10809/append")),
    ],
)
def test_mounts(text: str, mount: HostMount) -> None:
    assert mount_words.mount(text) == mount
    assert mount_words.mount(str(mount)) == mount


@pytest.mark.parametrize("text", ["", "/src", "=x", "/src=", "="])
def test_no_mounts(text: str) -> None:
    with pytest.raises(UsageError, match="not of the form DIR=SRC"):
        mount_words.mount(text)


def test_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRESENT", "a=b")
    monkeypatch.delenv("ABSENT", raising=False)
    given = ["A=", "B=x=y", "PRESENT", "ABSENT", "A=2"]
    assert mount_words.variables(given) == {
        "A": "2",
        "B": "x=y",
        "PRESENT": "a=b",
    }
    for text in ("", "=", "1A=x", "A-B", "A\n=x", "é=x"):
        with pytest.raises(UsageError, match="is not the name of a variable"):
            mount_words.variables([text])


def test_directories() -> None:
    assert mount_words.directory(None) is None
    assert mount_words.directory("/a b") == "/a b"
    for text in ("", ".", "a"):
        with pytest.raises(UsageError, match="not an absolute path"):
            mount_words.directory(text)


def test_places() -> None:
    check_places(["/src", "/src/below", "/run/user", "/dev/shm", "/tmp", "/a/../b"])
    for place in ("", "src", ".", "/", "//", "/a/..", "/proc", "/dev/", "/run/../sys", "/run/umlfs", "/run/umlfs/x"):
        with pytest.raises(UsageError, match="not a place to mount at"):
            check_places(["/ok", place])
    with pytest.raises(UsageError, match="two things"):
        check_places(["/a/b", "/a/../a//b/"])
