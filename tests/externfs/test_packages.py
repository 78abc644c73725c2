"""`packages:` on a scratch root with packages made here, by dpkg itself."""

from __future__ import annotations

import errno
import subprocess
from pathlib import Path

import pytest
import trio

from tests import needs
from tests.externfs.driver import driving, refused
from umlfs import sources
from umlfs.errors import UmlError


def deb(directory: Path, name: str, version: str = "1.0") -> Path:
    """A package with a file of its name and a file that both versions have."""
    tree = directory / f"tree-{name}-{version}"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "usr/share").mkdir(parents=True)
    (tree / f"usr/share/{name}").write_text(version)
    control = (
        f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: Me <me@x>\nDescription: a {name}\n more\n"
    )
    (tree / "DEBIAN/control").write_text(control)
    path = directory / f"{name}_{version}.deb"
    subprocess.run([needs.program("dpkg-deb"), "--root-owner-group", "-b", tree, path], check=True, capture_output=True)
    return path


@pytest.fixture
def system(tmp_path: Path) -> Path:
    """A root with two packages."""
    needs.root()
    root = tmp_path / "root"
    for name in ("info", "updates"):
        (root / "var/lib/dpkg" / name).mkdir(parents=True)
    (root / "var/lib/dpkg/status").touch()
    (root / "var/lib/dpkg/available").touch()
    for name in ("apple", "pear"):
        words = [needs.program("dpkg"), f"--root={root}", "--force-script-chrootless", "-i", str(deb(tmp_path, name))]
        subprocess.run(words, check=True, capture_output=True)
    lists = root / "var/lib/apt/lists"
    lists.mkdir(parents=True)
    (lists / "x_Packages").write_text(
        "Package: plum\nVersion: 2\nDescription: a plum\n\nPackage: fig\nVersion: 1:3\n\n"
    )
    return root


async def test_reading(system: Path) -> None:
    async with driving(f"packages:{system}") as tree:
        assert await tree.ls("installed") == ["apple-1.0", "pear-1.0"]
        assert await tree.cat("installed/apple-1.0/version") == b"1.0\n"
        assert await tree.cat("installed/apple-1.0/description") == b"a apple\nmore\n"
        assert await tree.readlink("installed/apple-1.0/files/usr/share/apple") == "/usr/share/apple"
        assert await tree.ls("by-file/usr/share") == ["apple", "pear"]
        link = await tree.readlink("by-file/usr/share/pear")
        assert link == "../../../installed/pear-1.0"
        assert await tree.ls("available") == ["fig-1:3", "plum-2"]
        assert await tree.cat("available/plum-2/description") == b"a plum\n"
        for path in ("installed/nothing-1", "by-file/etc", "available/fig-4", "installed/../x"):
            with refused(errno.ENOENT):
                await tree.cat(path)
        assert tree.fs.traits.read_only


async def test_installing_and_removing(system: Path, tmp_path: Path) -> None:
    async with driving(f"packages:{system},rw") as tree:
        await tree.put("installed/plum.deb", deb(tmp_path, "plum", "2.0").read_bytes())
        assert await tree.ls("installed") == ["apple-1.0", "pear-1.0", "plum-2.0"]
        assert (system / "usr/share/plum").read_text() == "2.0"
        await tree.rm_r("installed/pear-1.0")
        assert await tree.ls("installed") == ["apple-1.0", "plum-2.0"]
        assert not (system / "usr/share/pear").exists()
        with refused(errno.EIO):
            await tree.put("installed/broken.deb", b"no package at all")
        said = await tree.cat("log")
        assert b"install plum.deb" in said
        assert b"remove pear" in said
        assert b"broken.deb" in said
        with refused(errno.EPERM):
            await tree.put("installed/text", b"x")


def test_two_systems_are_compared(system: Path, tmp_path: Path) -> None:
    """`all:` of two package databases, and what is removed everywhere."""

    async def work() -> None:
        async with driving(f"all:one=packages:{system},two=packages:{system}") as tree:
            assert await tree.ls() == ["every", "one", "outcome", "two"]
            assert await tree.cat("every/installed/apple-1.0/version") == b"1.0\n"
            assert await tree.ls("two/installed") == ["apple-1.0", "pear-1.0"]

    trio.run(work)


def test_no_database(tmp_path: Path) -> None:
    with pytest.raises(UmlError, match="no package database of dpkg's; name the root of a Debian system"):
        trio.run(sources.parse(f"packages:{tmp_path}").open)
