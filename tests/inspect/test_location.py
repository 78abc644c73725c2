"""Words to places."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from runtime.inspect.location import Location, is_remote, machine_source, parse
from runtime.inspect.place import own_name, place_of
from runtime.machines.client import find
from runtime.machines.directory import claimed
from umlfs.errors import UsageError
from umlfs.sources import detect
from umlfs.sources import parse as source


@pytest.fixture(autouse=True)
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("disk.img", "a:b", "cow", "back"):
        Path(name).touch()
    Path("dir").mkdir()


@pytest.mark.parametrize(
    ("word", "source", "partition", "path"),
    [
        ("disk.img", "disk.img", None, None),
        ("disk.img:/etc", "disk.img", None, "/etc"),
        ("disk.img:etc/x:y", "disk.img", None, "etc/x:y"),
        ("disk.img:2", "disk.img", 2, None),
        ("disk.img:2:/etc", "disk.img", 2, "/etc"),
        ("disk.img:", "disk.img", None, ""),
        ("disk.img:2x", "disk.img", None, "2x"),
        ("dir", "dir", None, None),
        ("a:b", "a:b", None, None),
        ("a:b:/c", "a:b", None, "/c"),
        ("raw:disk.img:1", "raw:disk.img", 1, None),
        ("cow:cow,back:/x", "cow:cow,back", None, "/x"),
        ("cow,back:1:/x", "cow,back", 1, "/x"),
        ("nbd://host:10809/name:/etc", "nbd://host:10809/name", None, "/etc"),
        ("nbd://host/name:1:/etc", "nbd://host/name", 1, "/etc"),
    ],
)
def test_words(word: str, source: str, partition: int | None, path: str | None) -> None:
    found = parse(word)
    assert (str(found.source), found.partition, found.path, found.machine) == (source, partition, path, False)


@pytest.mark.parametrize("word", ["", "nothing", "nothing:/etc", "raw:nothing:/x"])
def test_words_without_a_source(word: str) -> None:
    with pytest.raises(UsageError, match="no such file or directory; name a source"):
        parse(word)


def test_machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine has its name for as long as it runs, and no file has it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    with claimed(tmp_path / ".uml", "web"):
        assert parse("web") == Location(machine_source("web"))
        assert parse("web:/etc/x:y") == Location(machine_source("web"), None, "/etc/x:y")
        assert is_remote("web:/etc")
        assert place_of("web:/etc/").machine
        assert not parse("disk.img:/web").machine
        with pytest.raises(UsageError):
            parse("./web:/etc")
        Path("web").mkdir()
        assert parse("web:/etc") == Location(detect("web"), None, "/etc")
        Path("web").rmdir()
    with pytest.raises(UsageError, match="web: no such file"):
        parse("web:/etc")


def test_machines_elsewhere(tmp_path: Path) -> None:
    """By the path of their directory, or of a socket in it, for as long as they run."""
    place = tmp_path / "elsewhere/web"
    with claimed(place.parent, "web"):
        with socket.socket(socket.AF_UNIX) as console:
            console.bind(str(place / "mconsole"))
        for word in (f"{place}", "./elsewhere/web", "elsewhere/web/mconsole"):
            assert parse(f"{word}:/etc") == Location(machine_source(word), None, "/etc")
            assert parse(word) == Location(machine_source(word))
            assert is_remote(f"{word}:/etc")
            assert find(word) == place
        assert not parse(f"hostfs:{place}:/etc").machine
        assert not parse("elsewhere:/web").machine
    assert not place.exists()
    place.mkdir()
    assert not parse(f"{place}:/etc").machine


def test_a_file_with_a_colon_in_its_name() -> None:
    Path("disk.img:x").touch()
    assert is_remote("disk.img:/x")
    assert not is_remote("./disk.img:x")
    assert not is_remote("nothing:x")
    assert not is_remote("dir")


def test_places_of_this_host(tmp_path: Path) -> None:
    top = tmp_path.resolve()
    Path("link").symlink_to("dir")
    assert place_of("dir") == Location(source(f"hostfs:{top}/dir"), None, "/")
    assert place_of("link") == Location(source(f"hostfs:{top}/dir"), None, "/")
    assert place_of("link", follow=False) == Location(source(f"hostfs:{top}"), None, "link")
    assert place_of("new") == Location(source(f"hostfs:{top}"), None, "new")
    assert place_of("dir/new/") == Location(source(f"hostfs:{top}/dir"), None, "new")
    with pytest.raises(UsageError, match="no such directory"):
        place_of("nowhere/new")


def test_names_of_copies() -> None:
    assert own_name("disk.img:/etc/fstab") == b"fstab"
    assert own_name("disk.img:/etc/") == b"etc"
    assert own_name("disk.img:2:/") == b""
    assert own_name("dir/") == b"dir"
