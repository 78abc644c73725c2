from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest

from runtime.host import cache
from runtime.kernels import kernel
from runtime.kernels.kernel import Kernel, configuration, find_kernel
from umlfs.errors import UmlError


def write(path: Path, content: bytes, mode: int = 0o755) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


def message(path: Path | str | None) -> str:
    with pytest.raises(UmlError) as caught:
        find_kernel(path)
    assert caught.value.status == 1
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_installed_kernel() -> None:
    found = find_kernel()
    assert found.path.name in ("linux.uml", "linux")
    assert found.modules is not None
    assert found.modules.name == found.version
    assert (found.modules / "modules.dep").is_file()


def test_version_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first = find_kernel()

    def fail(path: Path, option: str) -> str:
        raise AssertionError(option)

    monkeypatch.setattr(kernel, "ask", fail)
    assert find_kernel() == first


def test_corrupt_cached_version_is_asked_again() -> None:
    first = find_kernel()
    root = cache.directory()
    assert root is not None
    (stored,) = root.glob("kernel-*")
    stored.write_bytes(b"6.1\nnonsense")
    assert find_kernel() == first
    assert stored.read_bytes() == first.version.encode()


def test_works_without_a_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    assert find_kernel().version


def test_environment_names_the_kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    installed = find_kernel()
    copy = tmp_path / "mine"
    copy.symlink_to(installed.path)
    monkeypatch.setenv("UML_KERNEL", str(copy))
    assert find_kernel() == Kernel(copy, installed.version, installed.modules)


def test_name_without_slash_is_searched_in_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_kernel("linux.uml").path == find_kernel().path


def test_own_modules_come_before_the_packaged_ones(tmp_path: Path) -> None:
    installed = find_kernel()
    copy = tmp_path / "linux"
    shutil.copy(installed.path, copy)
    own = tmp_path / "modules" / installed.version
    own.mkdir(parents=True)
    (own / "modules.dep").touch()
    assert find_kernel(copy).modules == own


def test_no_kernel_at_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "apt install user-mode-linux" in message(None)
    write(tmp_path / "linux", b"#!/bin/sh\n")
    assert "no User-mode Linux kernel" in message(None)


def test_missing_file(tmp_path: Path) -> None:
    assert f"{tmp_path}/linux: no such kernel" in message(tmp_path / "linux")


def test_directory(tmp_path: Path) -> None:
    assert "not a kernel but a directory" in message(tmp_path)


def test_fifo(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o700)
    assert "special file" in message(tmp_path / "fifo")


def test_not_executable(tmp_path: Path) -> None:
    assert "not executable" in message(write(tmp_path / "linux", b"\x7fELF", mode=stat.S_IRUSR))


def test_bzimage(tmp_path: Path) -> None:
    assert "bzImage" in message(write(tmp_path / "vmlinuz", bytes(0x202) + b"HdrS" + bytes(1000)))


def test_script_is_not_run(tmp_path: Path) -> None:
    script = write(tmp_path / "linux", b"#!/bin/sh\necho 6.1; touch %s/ran\n" % bytes(tmp_path))
    assert "a script" in message(script)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"x", b"text\n" * 500])
def test_no_program(tmp_path: Path, content: bytes) -> None:
    assert "not an executable program" in message(write(tmp_path / "linux", content))


def test_another_program() -> None:
    assert "not a User-mode Linux kernel" in message("/bin/true")


def test_broken_program(tmp_path: Path) -> None:
    broken = write(tmp_path / "linux", b"\x7fELF" + bytes(64) + b"User Mode Linux")
    assert "cannot be run" in message(broken)


def test_configuration() -> None:
    assert configuration(find_kernel().path)["CONFIG_UML"] == "y"
