from __future__ import annotations

import errno
import mmap
import os
from pathlib import Path

import pytest

from runtime.process import memory
from runtime.process.memory import memory_directory, parse_size
from umlfs.errors import UmlError, UsageError


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("256M", 256 << 20),
        ("256m", 256 << 20),
        ("1G", 1 << 30),
        ("64MiB", 64 << 20),
        ("64MB", 64 << 20),
        ("65536k", 64 << 20),
        (str(64 << 20), 64 << 20),
        (str((64 << 20) + 1), 64 << 20),
        (" 64M ", 64 << 20),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "M", "-1", "-256M", "1.5G", "256X", "0x100M", "64b", "٣M", "1e9", "256 M M"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(UsageError, match="not a size of memory"):
        parse_size(text)


@pytest.mark.parametrize("text", ["0", "1M", "31M", "64k"])
def test_too_little(text: str) -> None:
    with pytest.raises(UsageError, match="too little memory"):
        parse_size(text)


def test_forgotten_unit_is_guessed() -> None:
    with pytest.raises(UsageError, match="did you mean 256M"):
        parse_size("256")


@pytest.mark.parametrize("text", ["1000T", "999999999999999999T"])
def test_absurd(text: str) -> None:
    with pytest.raises(UsageError, match="more than 8 times the memory"):
        parse_size(text)


def test_default_place_is_on_a_tmpfs() -> None:
    assert memory_directory() == Path("/dev/shm")


def test_environment_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Path(f"/dev/shm/umlfs-test-{os.getpid()}")
    place.mkdir()
    try:
        monkeypatch.setenv("TMPDIR", "/nowhere")
        monkeypatch.setenv("TEMP", str(place))
        assert memory_directory() == place
        assert list(place.iterdir()) == []
    finally:
        place.rmdir()


def test_disk_comes_after_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(memory, "_volatile_devices", lambda: {_device(Path("/dev/shm"))})
    assert memory_directory() == Path("/dev/shm")


def _device(path: Path) -> str:
    device = path.stat().st_dev
    return f"{os.major(device)}:{os.minor(device)}"


def test_too_little_room() -> None:
    with pytest.raises(UmlError, match=r"/dev/shm has only \d+ MiB free.*set TMPDIR"):
        memory_directory(1 << 60)


def test_noexec(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(fd: int, length: int, *, prot: int) -> None:
        assert prot & mmap.PROT_EXEC
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(mmap, "mmap", refuse)
    assert memory._complaint(tmp_path, 1) == "is mounted noexec"


def test_unfit_places(tmp_path: Path) -> None:
    assert memory._complaint(tmp_path / "missing", 1) == "cannot be used (No such file or directory)"
    spaced = tmp_path / "a b"
    spaced.mkdir()
    assert memory._complaint(spaced, 1) == "has a space in its name"
    assert memory._complaint(Path("/proc"), 1) is not None
