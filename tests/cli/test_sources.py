"""Every kind of source through every command: each works, or says in one line why it cannot."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests import needs
from umlfs.cow.create import create

UML = [sys.executable, "-c", "from runtime.cli import main; main()"]
WORDS = {
    "path": "tree",
    "hostfs": "hostfs:tree",
    "humfs": "humfs:hum",
    "image": "disk.img",
    "raw": "raw:disk.img",
    "cow": "disk.cow",
    "cow pair": "disk.cow,disk.img",
    "qcow2": "disk.qcow2",
    "qcow2 said": "qcow2:disk.qcow2",
    "vmdk": "disk.vmdk",
    "nbd": "nbd+unix:///?socket=nbd",
    "missing": "nothing",
    "unknown": "colour:blue",
}
"""A word for each kind of source."""
TREES = {"path", "hostfs", "humfs"}
BAD = {"missing", "unknown"}
DISKS = set(WORDS) - TREES - BAD
SOME = {"path", "humfs", "cow pair", "qcow2", "nbd"}
"""Those that a short run boots guests for."""
BOOTED = [each if each in SOME else pytest.param(each, marks=pytest.mark.slow) for each in sorted(TREES | DISKS)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory with one of each."""
    place = tmp_path_factory.mktemp("sources")
    (place / "tree").mkdir()
    (place / "tree/file").write_text("contents\n")
    subprocess.run(
        [needs.program("mke2fs"), "-q", "-F", "-t", "ext4", "-d", place / "tree", place / "disk.img", "16M"], check=True
    )
    create(str(place / "disk.cow"), str(place / "disk.img"))
    for name in ("qcow2", "vmdk"):
        qemu_img = [needs.program("qemu-img"), "convert", "-f", "raw", "-O", name, "disk.img", f"disk.{name}"]
        subprocess.run(qemu_img, cwd=place, check=True)
    subprocess.run([*UML, "image", "convert", "dir:tree", "humfs:hum"], cwd=place, check=True)
    (place / "served.img").write_bytes((place / "disk.img").read_bytes())
    with ExitStack() as stack:
        server = stack.enter_context(
            subprocess.Popen(
                [*UML, "serve", "nbd", "served.img", "--socket", "nbd"], cwd=place, stdout=subprocess.PIPE, text=True
            )
        )
        stack.callback(server.terminate)
        assert server.stdout is not None
        assert server.stdout.readline().startswith("nbd+unix:")
        yield place


def said(place: Path, *words: str, status: int | None = 0) -> str:
    """What a command prints, on both streams. A failure is one line."""
    done = subprocess.run(
        [*UML, *words], cwd=place, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=60
    )
    if status is not None:
        assert done.returncode == status, done.stdout
    if done.returncode:
        assert done.stdout.startswith("uml: "), done.stdout
        assert done.stdout.count("\n") == 1, done.stdout
    return done.stdout


def refused(place: Path, *words: str) -> str:
    text = said(place, *words, status=None)
    assert text.startswith("uml: "), text
    return text


@pytest.mark.guest
@pytest.mark.parametrize("kind", BOOTED)
def test_looking_into_it(place: Path, kind: str) -> None:
    word = WORDS[kind]
    assert "file" in said(place, "ls", word)
    assert said(place, "cat", f"{word}:/file") == "contents\n"
    said(place, "cp", "-f", f"{word}:/file", "copy")
    assert (place / "copy").read_text() == "contents\n"


@pytest.mark.guest
@pytest.mark.parametrize("kind", BOOTED)
def test_in_a_guest(place: Path, kind: str) -> None:
    """As a mount, with the options that every kind has; dry runs say the same of a root."""
    word = WORDS[kind]
    assert said(place, "run", "--mount", f"/x={word}:ro", "--", "cat", "/x/file") == "contents\n"
    lines = said(place, "run", "--root", word, "--dry-run", "--", "true")
    start = next(line for line in lines.splitlines() if line.startswith("start"))
    assert ("/RUN/1:26" in start) == (kind in TREES)
    assert ("/RUN/1:2 " in start) == (kind in DISKS)


@pytest.mark.parametrize("kind", BOOTED)
def test_as_a_device(place: Path, kind: str) -> None:
    word = WORDS[kind]
    if kind in TREES:
        assert "is not a block device; 'uml serve virtiofs'" in refused(place, "serve", "nbd", word, "--socket", "s")
        assert "is not a block device" in refused(place, "serve", "virtioblk", word, "--socket", "s")
        assert "a tree, not an image" in refused(place, "image", "info", word)
        assert "is not a block device" in refused(place, "cow", "diff", word, "disk.img")
        return
    assert "is not a filesystem; 'uml serve nbd'" in refused(place, "serve", "virtiofs", word, "--socket", "s")
    assert "ext4" in said(place, "image", "info", word)
    assert said(place, "cow", "diff", word, "disk.img") == ""


UBD = {"image", "cow", "qcow2", "vmdk", "nbd"}
"""What is named as on a kernel's command line, where a colon separates and directories are no disks."""


@pytest.mark.parametrize("kind", sorted(UBD))
def test_as_a_ubd_device(place: Path, kind: str) -> None:
    lines = said(place, "run", "--ubd", f"ubd0r={WORDS[kind]}", "--dry-run", "--", "true")
    assert re.search(r"virtio_uml\.device=/RUN/\d+:2 ", lines), "no block device (virtio's kind 2)"


def test_a_directory_as_a_ubd_device(place: Path) -> None:
    assert "tree: neither a file nor a block device" in refused(place, "run", "--ubd", "ubd0=tree", "--", "true")


@pytest.mark.parametrize("kind", sorted(BAD))
@pytest.mark.parametrize(
    "words",
    [
        ("ls", "{}"),
        ("cat", "{}:/file"),
        ("cp", "{}:/file", "copy"),
        ("diff", "{}", "tree"),
        ("run", "--root", "{}", "--", "true"),
        ("run", "--mount", "/x={}:ro", "--", "true"),
        ("serve", "nbd", "{}", "--socket", "s"),
        ("image", "info", "{}"),
        ("cow", "diff", "{}", "disk.img"),
    ],
)
def test_what_is_no_source(place: Path, kind: str, words: tuple[str, ...]) -> None:
    text = refused(place, *(word.format(WORDS[kind]) for word in words))
    assert "no such file or directory" in text.lower() or "unknown kind of source" in text


def test_options_of_every_kind(place: Path) -> None:
    """The kinds own their options, and refuse what is no option of theirs."""
    for option, message in (
        ("cache=sometimes", "hostfs: cache=sometimes means nothing"),
        ("atime=noatime", "unknown option 'atime'"),
        ("timeout=5", "unknown option 'timeout'"),
    ):
        assert message in refused(place, "run", "--mount", f"/x=tree:{option}", "--", "true")
    assert "unknown option 'cache'" in refused(place, "run", "--mount", "/x=disk.img:cache=auto", "--", "true")
    said(place, "run", "--mount", "/x=.:rw", "--mount", "/y=humfs:hum:atime=noatime:ro", "--dry-run", "--", "true")
