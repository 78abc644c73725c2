"""The Debian package: built as Debian does, without a complaint of lintian's, and running from where it is unpacked."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests import needs
from tests.packaging.checkout import copy_checkout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the package."""
    needs.program("dh")
    tree = copy_checkout(tmp_path_factory.mktemp("debian") / "umlfs")
    # With -d, since Python and its tools may be another distribution's or one's own.
    command = [needs.program("dpkg-buildpackage"), "-us", "-uc", "-b", "-d"]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    return tree.parent


def test_lintian_has_nothing_to_say(built: Path) -> None:
    (changes,) = built.glob("*.changes")
    root = ["--allow-root"] if os.geteuid() == 0 else []
    done = subprocess.run([needs.program("lintian"), *root, changes], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


@pytest.fixture(scope="module")
def unpacked(built: Path) -> Path:
    """The package's files."""
    (package,) = built.glob("*.deb")
    subprocess.run(["dpkg-deb", "-x", package, built / "unpacked"], check=True)
    return built / "unpacked"


def test_what_is_in_it(unpacked: Path) -> None:
    programs = ("usr/bin/uml", "usr/sbin/mount.fuse.umlfs", "usr/lib/umlfs/bin/uml_moo")
    for name in (*programs, "usr/share/man/man1/uml-run.1.gz"):
        assert (unpacked / name).is_symlink() or (unpacked / name).is_file(), name
    compiled = sorted(path.name.split("-")[0] for path in (unpacked / "usr/lib/umlfs/lib/umlfs").iterdir())
    assert {"announcer", "cards", "cgi", "filer", "jail", "stand_in"} <= set(compiled)
    (site,) = (unpacked / "usr/lib/umlfs/lib").glob("python3*/site-packages")
    assert not [path for path in site.iterdir() if path.name.lower().startswith(("pip", "setuptools", "cython"))]
    program = "import sys; sys.path[:0] = [sys.argv.pop(1)]; from umlfs.entry import uml; sys.argv[0] = 'uml'; uml()"
    done = subprocess.run(
        ["/usr/bin/python3", "-I", "-c", program, site, "--version"], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("uml 0.1.0\n", "")


IN_PLACE = """
mount -t overlay -o "lowerdir=$1/usr/lib:$(realpath /usr/lib)" overlay /usr/lib
mount -t overlay -o "lowerdir=$2:$1/usr/bin:/usr/bin" overlay /usr/bin
uml --version
"""


@pytest.mark.parametrize("env", ["GNU's", "another"])
def test_it_starts_from_where_it_is_installed(env: str, unpacked: Path, tmp_path: Path) -> None:
    """Where `env` is busybox's, which cannot block signals, too."""
    if env == "another":
        (tmp_path / "env").symlink_to(needs.program("busybox"))
    command: list[str | Path] = [*needs.mount_namespace(), "sh", "-ec", IN_PLACE, "sh", unpacked, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "uml 0.1.0\n", "")
