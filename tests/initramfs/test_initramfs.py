from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from runtime.guest import initramfs
from runtime.guest.initramfs import build, find_busybox, load_snippet
from runtime.host import cache
from runtime.kernels.kernel import Kernel, find_kernel
from umlfs.errors import UmlError

NAMES = ("virtiofs", "overlay")


@pytest.fixture
def kernel() -> Kernel:
    return find_kernel()


def listing(path: Path) -> list[str]:
    with open(path, "rb") as file:
        done = subprocess.run(["cpio", "-t", "--quiet"], stdin=file, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_contents(kernel: Kernel, tmp_path: Path) -> None:
    path = build(kernel, NAMES, b"#!/bin/busybox sh\n", find_busybox(), {"/etc/x": b"1"}, scratch=tmp_path)
    place = f"lib/modules/{kernel.version}"
    modules = [f"{place}/{name}" for name in ("fuse.ko", "modules.dep", "overlay.ko", "virtiofs.ko")]
    parents = ["bin", "dev", "etc", "lib", "lib/modules", place, "proc", "sys"]
    assert sorted(listing(path)) == sorted([*modules, *parents, "bin/busybox", "etc/x", "init"])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_modules_for_later(kernel: Kernel, tmp_path: Path) -> None:
    """In their order, and each only where it is not there already."""
    path = build(kernel, ["fuse"], b"init", find_busybox(), later=["virtiofs", "fuse", "virtio_blk"], scratch=tmp_path)
    found = [name for name in listing(path) if name.endswith(".ko")]
    assert [name.rpartition("/")[2] for name in found] == ["fuse.ko", "00.virtiofs.ko", "01.virtio_blk.ko"]
    assert found[1].startswith(f"{initramfs.LATER}/")


def test_second_time_comes_from_the_cache(kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build(kernel, NAMES, b"init", find_busybox(), scratch=tmp_path)
    monkeypatch.setattr(initramfs, "_archive", None)
    assert build(kernel, NAMES, b"init", find_busybox(), scratch=tmp_path) == first


def test_anything_else_gives_another_archive(kernel: Kernel, tmp_path: Path) -> None:
    busybox = tmp_path / "busybox"
    shutil.copy(find_busybox(), busybox)
    paths = {
        build(kernel, NAMES, b"init", find_busybox(), scratch=tmp_path),
        build(kernel, NAMES, b"other", find_busybox(), scratch=tmp_path),
        build(kernel, NAMES[:1], b"init", find_busybox(), scratch=tmp_path),
        build(kernel, NAMES, b"init", find_busybox(), {"a": b""}, scratch=tmp_path),
        build(kernel, NAMES, b"init", busybox, scratch=tmp_path),
        build(kernel, NAMES, b"init", find_busybox(), later=["virtio_blk"], scratch=tmp_path),
    }
    assert len(paths) == 6


def test_damaged_archive_is_made_anew(kernel: Kernel, tmp_path: Path) -> None:
    path = build(kernel, [], b"init", find_busybox(), scratch=tmp_path)
    content = path.read_bytes()
    for damaged in (b"", content[:-512], content[:1000] + b"!" + content[1001:]):
        path.write_bytes(damaged)
        assert build(kernel, [], b"init", find_busybox(), scratch=tmp_path) == path
        assert path.read_bytes() == content


def test_archive_that_others_could_write_is_made_anew(kernel: Kernel, tmp_path: Path) -> None:
    path = build(kernel, [], b"init", find_busybox(), scratch=tmp_path)
    path.chmod(0o666)
    assert build(kernel, [], b"init", find_busybox(), scratch=tmp_path) == path
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("home", ["/proc/nowhere", "/tmp/with space"])
def test_without_a_cache_it_lies_in_scratch(
    home: str, kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = home if home.startswith("/proc") else str(tmp_path / "with space")
    monkeypatch.setenv("XDG_CACHE_HOME", place)
    path = build(kernel, [], b"init", find_busybox(), scratch=tmp_path)
    assert path.parent == tmp_path
    assert "init" in listing(path)


def test_old_archives_go(kernel: Kernel, tmp_path: Path) -> None:
    for index in range(initramfs.KEPT + 2):
        last = build(kernel, [], b"init %d" % index, find_busybox(), scratch=tmp_path)
    root = cache.directory()
    assert root is not None
    left = list(root.glob("initramfs-*"))
    assert len(left) == initramfs.KEPT
    assert last in left


def test_programs_and_scripts_become_executable(kernel: Kernel, tmp_path: Path) -> None:
    extra = {"script": b"#!/bin/sh\n", "program": b"\x7fELF", "data": b"data"}
    path = build(kernel, [], b"init", find_busybox(), extra, scratch=tmp_path)
    with open(path, "rb") as file:
        subprocess.run(["cpio", "-id", "--quiet"], stdin=file, cwd=tmp_path, check=True)
    modes = {name: os.access(tmp_path / name, os.X_OK) for name in extra}
    assert {name: (tmp_path / name).stat().st_mode & 0o111 for name in modes} == {
        "script": 0o111,
        "program": 0o111,
        "data": 0,
    }


def test_unknown_module(kernel: Kernel, tmp_path: Path) -> None:
    with pytest.raises(UmlError, match="no module nonsense"):
        build(kernel, ["nonsense"], b"init", find_busybox(), scratch=tmp_path)


def test_snippet(kernel: Kernel) -> None:
    assert load_snippet(kernel, ["overlay", "virtiofs"]) == "/bin/busybox modprobe -a overlay fuse virtiofs"
    assert load_snippet(kernel, []) == ""


def test_busybox_of_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mine = tmp_path / "busybox"
    shutil.copy(find_busybox(), mine)
    monkeypatch.setenv("UML_BUSYBOX", str(mine))
    assert find_busybox() == mine


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "not a program"),
        (b"#!/bin/sh\n" * 20, "not a program"),
        (b"\x7fELF\x02\x01" + bytes(16), "not a program"),
        (b"\x7fELF\x01\x01" + bytes(100), "not a program"),
        (b"\x7fELF\x02\x01" + bytes(100), "not a program for this machine"),
        (None, "cannot be read: No such file"),
    ],
)
def test_no_busybox(content: bytes | None, complaint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mine = tmp_path / "busybox"
    if content is not None:
        mine.write_bytes(content)
    monkeypatch.setenv("UML_BUSYBOX", str(mine))
    with pytest.raises(UmlError, match=f"{complaint}.*apt install busybox-static"):
        find_busybox()


def test_dynamic_busybox(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UML_BUSYBOX", "/bin/true")
    with pytest.raises(UmlError, match="not a static busybox"):
        find_busybox()
