"""Images by recipe: what the file may say, and what comes of it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from runtime.images import formats
from runtime.images.convert import Writing
from runtime.images.recipes import kept
from runtime.images.recipes.building import build_by_recipe
from runtime.images.recipes.description import read
from runtime.process import processes
from tests import needs
from umlfs.errors import UmlError, UsageError

RECIPE = """\
base = "base.tar"
run = ["echo $(id -un walker) > /etc/made", "{second}"]

[[file]]
path = "/etc/motd"
source = "motd"
mode = "0640"
owner = "walker:web"

[[user]]
name = "walker"
uid = 1234
groups = ["web"]
password = "secret"
ssh_key = "ssh-ed25519 AAAA me"
"""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "give either suite or base"),
        ('suite = "a"\nbase = "b"', "give either suite or base"),
        ("suite = 5", "suite is a text"),
        ('suite = "a"\npackages = "b"', "packages is a list"),
        ('suite = "a"\npackages = [5]', "packages is a list of texts"),
        ('suite = "a"\nsuit = 1', "'suit' is unknown"),
        ('suite = "a"\nfile = 5', "file is a list"),
        ('suite = "a"\n[[file]]\npath = "x"', "'x' is no path from the root"),
        ('suite = "a"\n[[file]]\npath = "/../x"', "'/../x' is no path from the root"),
        ('suite = "a"\n[[file]]\npath = "/x"', "file 1: /x: give either content or source"),
        ('suite = "a"\n[[file]]\npath = "/x"\ncontent = ""\nmode = "9"', "'9' is no mode"),
        ('suite = "a"\n[[user]]\nuid = 1', "user 1: name is missing"),
        ('suite = "a"\n[[user]]\nname = "a; b"', "'a; b' is no name of a user"),
        ('suite = "a"\n[[user]]\nname = "a"\nuid = true', "uid is a number"),
        ('base = "a"\nhostname = "b"', "are for a suite"),
        ('base = "a"\npackages = ["b"]', "packages come over the network; say network = true"),
        ("suite =", "no TOML"),
    ],
)
def test_what_makes_no_sense(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(UsageError, match=f"r.toml: .*{re.escape(said)}"):
        read(tmp_path / "r.toml")


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UmlError, match=r"none\.toml: No such file or directory"):
        read(tmp_path / "none.toml")
    (tmp_path / "r.toml").write_text('suite = "a"\n[[file]]\npath = "/x"\nsource = "gone"')
    with pytest.raises(UmlError, match=f"{tmp_path}/gone: No such file or directory"):
        read(tmp_path / "r.toml")


def with_programs(tree: Path) -> None:
    """A root with a shell, and the host's own programs that make users."""
    for name in ("bin", "dev", "proc", "sys", "tmp", "run", "etc", "root", "home"):
        (tree / name).mkdir(parents=True)
    shutil.copy(needs.program("busybox"), tree / "bin/busybox")
    for name in ("sh", "mkdir", "chown", "id"):
        (tree / "bin" / name).symlink_to("busybox")
    for name in ("useradd", "usermod", "chpasswd"):
        program = needs.program(name)
        found = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
        for path in (program, *re.findall(r"(/\S+) \(0x", found)):
            place = tree / path.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(os.path.realpath(path), place)
    (tree / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (tree / "etc/group").write_text("root:x:0:\nweb:x:99:\n")
    (tree / "etc/shadow").write_text("root:*:1::::::\n")


async def test_nothing_is_kept_of_a_base_that_nothing_is_known_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory may change at any time: what was made of it is never found again, and takes no room of others."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "tree/etc").mkdir(parents=True)
    (tmp_path / "r.toml").write_text('base = "tree"\n[[file]]\npath = "/etc/motd"\ncontent = "hello"\n')
    titles: list[str] = []
    for name in ("one.tar", "two.tar"):
        await build_by_recipe(
            formats.destination(str(tmp_path / name)), read(tmp_path / "r.toml"), Writing(), titles.append
        )
        with tarfile.open(tmp_path / name) as made:
            assert [member.size for member in made if member.name.endswith("etc/motd")] == [5]
    assert titles == ["the base", "1 files"] * 2
    assert list((tmp_path / "cache").rglob("*.tar")) == []


@pytest.mark.guest
async def test_steps_are_done_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files, users and commands; what did not change is not done again; a command that fails leaves nothing but the
    steps before it; a kept tree that is damaged is made anew."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with_programs(tmp_path / "tree")
    subprocess.run([needs.program("tar"), "-C", tmp_path / "tree", "-cf", tmp_path / "base.tar", "."], check=True)
    (tmp_path / "motd").write_text("hello\n")
    (tmp_path / "out").mkdir()
    titles: list[str] = []

    async def build(second: str, name: str) -> list[str]:
        (tmp_path / "r.toml").write_text(RECIPE.format(second=second))
        titles.clear()
        target = formats.destination(str(tmp_path / "out" / name))
        with processes.for_machines():
            await build_by_recipe(target, read(tmp_path / "r.toml"), Writing(), titles.append)
        return titles

    first = ["1 files", "users", "run 'echo $(id -un walker) > /etc/made'"]
    with pytest.raises(UmlError, match="run 'nosuch': failed with status 127; its last words are above") as caught:
        await build("nosuch", "x.tar")
    assert "nosuch: not found" in str(caught.value.details)
    assert titles == ["the base", *first, "run 'nosuch'"]
    assert list((tmp_path / "out").iterdir()) == []
    assert await build("echo 2 > /etc/second", "x.tar") == ["4 of 5 steps are kept", "run 'echo 2 > /etc/second'"]
    with tarfile.open(tmp_path / "out/x.tar") as archive:
        motd = archive.getmember("./etc/motd")
        assert (motd.uid, motd.gid, motd.mode) == (1234, 99, 0o640)
        key = archive.getmember("./home/walker/.ssh/authorized_keys")
        assert key.uid == 1234
        made = archive.extractfile("./etc/made")
        shadow = archive.extractfile("./etc/shadow")
        assert made is not None
        assert shadow is not None
        assert made.read() == b"walker\n"
        assert b"walker:$6$" in shadow.read()
    [place] = (tmp_path / "cache").glob("umlfs/recipes")
    last = max(place.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    last.write_bytes(b"damaged")
    assert await build("echo 2 > /etc/second", "y.tar") == [
        "4 of 5 steps are kept",
        "run 'echo 2 > /etc/second'",
    ]
    assert len(list(place.iterdir())) <= kept.KEPT
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"x.tar", "y.tar"}
