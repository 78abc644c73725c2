"""Kernels of an archive that is made here: fetched, checked, unpacked, tried; and all that can go wrong with it."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.host import cache
from runtime.kernels import store
from runtime.kernels.install import install
from runtime.kernels.kernel import find_kernel, system_kernel
from runtime.kernels.listing import rows, table
from tests.kernels.archive import Archive, make_package, served
from umlfs.errors import UmlError, UsageError


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    place = tmp_path_factory.mktemp("archive")
    with served(place) as found:
        own = system_kernel()
        found.add("old", make_package(place, own, "6.1um4"))
        found.add("broken", make_package(place, own, "6.2um1", b"#!/bin/sh\nexit 3\n"))
        yield found


@pytest.fixture
def tried() -> list[Path]:
    return []


def get(
    archive: Archive, tried: list[Path], wanted: str = "old", *, keyring: str = "", name: str | None = None
) -> store.StoredKernel:
    keys = keyring or str(archive.keyring)
    return install(wanted, mirror=archive.url, keyring=keys, name=name, trial=tried.append)[0]


def nothing_is_left() -> bool:
    """But for the lock, and for what apt goes on from."""
    return not store.directory().exists() or {path.name for path in store.directory().iterdir()} <= {".lock"}


def test_it_is_there_from_then_on(archive: Archive, tried: list[Path]) -> None:
    own = system_kernel()
    entry = get(archive, tried)
    assert (entry.name, entry.about.version, entry.about.package) == (
        own.version,
        own.version,
        "user-mode-linux=6.1um4",
    )
    assert tried == [entry.kernel]
    assert list(entry.about.checksums) == ["user-mode-linux_6.1um4_amd64.deb"]
    found = find_kernel(own.version)
    assert (found.path, found.version) == (entry.kernel, own.version)
    assert found.modules == entry.path / "modules" / own.version
    assert find_kernel(".".join(own.version.split(".")[:2])) == found
    assert find_kernel() == found, "of two that are alike the one that was fetched"
    store.choose(store.SYSTEM)
    assert find_kernel() == own
    assert [(row.name, row.default) for row in rows()] == [(own.version, False), ("system", True)]
    assert "*  system" in table(rows())
    root = cache.directory()
    assert root is not None
    assert list(root.glob("apt/archives/*.deb")) == []
    # Again: it is there; and under another name it is another one.
    assert get(archive, tried) == entry
    assert get(archive, tried, name="mine").name == "mine"
    store.remove("mine")
    store.choose(entry.name)
    store.remove(entry.name)
    assert store.entries() == []
    assert store.chosen() is None
    assert find_kernel() == own
    with pytest.raises(UmlError, match="no such kernel"):
        store.remove(entry.name)


def test_a_download_that_breaks_off_goes_on(archive: Archive, tried: list[Path]) -> None:
    archive.cut_after = 1 << 20
    try:
        with pytest.raises(UmlError, match="cannot be fetched"):
            get(archive, tried)
        assert nothing_is_left()
    finally:
        archive.cut_after = 0
    archive.asked.clear()
    get(archive, tried)
    ((_, first),) = [each for each in archive.asked if each[0].endswith(".deb")]
    assert first >= 2 << 20, "apt itself has tried again, and again"


def test_signatures(archive: Archive, tried: list[Path], tmp_path: Path) -> None:
    """Of nobody that is trusted; of something else; and none at all."""
    other = tmp_path / "other"
    other.mkdir()
    unknown = "its signature is by a key that is not known here; "
    with served(other) as stranger, pytest.raises(UmlError, match=unknown):
        get(archive, tried, keyring=str(stranger.keyring))
    signed = archive.place / "dists/old/InRelease"
    content = signed.read_text()
    try:
        signed.write_text(content.replace("Codename: old", "Codename: new"))
        os.utime(signed, (later := time.time() + 60, later))
        with pytest.raises(UmlError, match="signature is wrong"):
            get(archive, tried)
        signed.unlink()
        with pytest.raises(UmlError, match="there is no such suite"):
            get(archive, tried)
    finally:
        signed.write_text(content)
    with pytest.raises(UmlError, match="no keys to check signatures by"):
        get(archive, tried, keyring="/nowhere")
    assert nothing_is_left()


def test_a_package_that_was_changed(archive: Archive, tried: list[Path]) -> None:
    path = archive.place / "pool/user-mode-linux_6.1um4_amd64.deb"
    content = path.read_bytes()
    try:
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(UmlError, match="what came is not what the archive says it has"):
            get(archive, tried)
    finally:
        path.write_bytes(content)
    assert nothing_is_left()


@pytest.mark.parametrize(
    ("wanted", "complaint"),
    [
        ("nosuch", "there is no such suite; name one such as trixie"),
        ("5.0", "cannot be had"),
        ("Not a suite", "not a suite of Debian"),
    ],
)
def test_what_does_not_exist(archive: Archive, tried: list[Path], wanted: str, complaint: str) -> None:
    with pytest.raises(UmlError, match=complaint):
        get(archive, tried, wanted)
    assert nothing_is_left()


def test_a_kernel_that_does_not_run(archive: Archive, tried: list[Path]) -> None:
    with pytest.raises(UmlError, match="a script, not a User-mode Linux kernel"):
        get(archive, tried, "broken")
    assert nothing_is_left()

    def fails(kernel: Path) -> None:
        raise UmlError("it crashed")

    with pytest.raises(UmlError, match=r"does not run guests here: it crashed; 'uml doctor'"):
        install("old", mirror=archive.url, keyring=str(archive.keyring), trial=fails)
    assert nothing_is_left()


def test_no_apt(archive: Archive, tried: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UmlError, match=r"apt-get is not there.*Fedora"):
        get(archive, tried)


def test_no_space(archive: Archive, tried: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")._replace(free=1 << 20)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(UmlError, match="1 MiB are free, 400 are needed"):
        get(archive, tried)


def test_what_a_killed_installation_leaves(archive: Archive, tried: list[Path]) -> None:
    """Counts for nothing, and is gone with the next; a kernel that it was to replace is back."""
    entry = get(archive, tried)
    entry.path.rename(entry.path.with_name(f".old-{entry.name}"))
    entry.path.mkdir()
    (store.directory() / "half").mkdir()
    assert store.entries() == []
    assert get(archive, tried, name="other").name == "other"
    assert {each.name for each in store.entries()} == {entry.name, "other"}
    assert not (store.directory() / "half").exists()


@pytest.mark.parametrize("name", ["../x", "", "system", "a b", ".x", "x" * 65])
def test_names_that_cannot_be(name: str) -> None:
    with pytest.raises(UsageError, match="not a name for a kernel"):
        store.check_name(name)


def test_two_at_a_time_are_refused() -> None:
    pid = os.getpid()
    with store.adding("a"), pytest.raises(UmlError, match=f"process {pid}|pid {pid}|in use"), store.adding("b"):
        pass
