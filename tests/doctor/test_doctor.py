from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from runtime.doctor import checks as doctor
from runtime.doctor.check import Check
from runtime.doctor.checks import can_run, diagnose
from runtime.kernels.features import Features
from runtime.kernels.kernel import Kernel
from umlfs.errors import UmlError


def found(name: str, kernel: str | None = None) -> Check:
    (check,) = (check for check in diagnose(kernel) if check.name == name)
    return check


def no_such_kernel(path: str | None = None) -> Kernel:
    raise UmlError(f"{path}: no such kernel")


def kernel_with(modules: Path | None) -> Kernel:
    return Kernel(Path("/usr/bin/linux.uml"), "6.1.0", modules)


def test_this_machine_can_run_guests() -> None:
    checks = diagnose()
    assert [check for check in checks if check.required and not check.ok] == []
    assert can_run(checks)
    assert {check.name for check in checks} >= {"kernel", "modules", "memory", "ptrace", "busybox", "/dev/fuse"}
    assert [check.mend for check in checks if check.ok] == [None] * sum(check.ok for check in checks)


def test_missing_kernel_is_installed_by_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "find_kernel", no_such_kernel)
    check = found("kernel")
    assert (check.ok, check.required) == (False, True)
    assert check.mend is not None
    assert check.mend.endswith("apt-get install user-mode-linux")
    assert not can_run(diagnose())


def test_missing_kernel_that_was_named_is_no_matter_of_packages(tmp_path: Path) -> None:
    check = found("kernel", str(tmp_path / "linux"))
    assert not check.ok
    assert str(tmp_path / "linux") in check.found
    assert check.mend is None


def test_modules_of_another_kernel_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "find_kernel", lambda path: kernel_with(None))
    monkeypatch.setattr("runtime.kernels.modules.features", lambda kernel: Features("6.1.0", frozenset()))
    check = found("modules")
    assert (check.ok, check.required) == (False, True)
    assert check.found.startswith("no modules for kernel 6.1.0 (/usr/bin/linux.uml), which needs fuse")
    assert check.mend is not None
    assert check.mend.endswith("apt-get install --reinstall user-mode-linux")


def test_modules_must_be_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "modules.dep").write_text("kernel/virtiofs.ko.xz: kernel/fuse.ko\nkernel/fuse.ko:\n")
    (tmp_path / "modules.builtin").write_text("kernel/overlay.ko\nkernel/virtio_blk.ko\n")
    (tmp_path / "kernel").mkdir()
    (tmp_path / "kernel" / "fuse.ko").touch()
    monkeypatch.setattr(doctor, "find_kernel", lambda path: kernel_with(tmp_path))
    assert found("modules").found == f"not there: {tmp_path}/kernel/virtiofs.ko.xz"
    (tmp_path / "kernel" / "virtiofs.ko.xz").touch()
    assert found("modules").ok


def test_modules_may_all_be_built_in(monkeypatch: pytest.MonkeyPatch) -> None:
    options = dict.fromkeys(("CONFIG_FUSE_FS", "CONFIG_VIRTIO_FS", "CONFIG_OVERLAY_FS", "CONFIG_VIRTIO_BLK"), "y")
    monkeypatch.setattr(doctor, "find_kernel", lambda path: kernel_with(None))
    monkeypatch.setattr("runtime.kernels.modules.features", lambda kernel: Features("6.1.0", frozenset(), options))
    assert found("modules").found == "built into the kernel"


@pytest.mark.parametrize(("mounted", "how"), [(True, "remount,exec"), (False, "-t tmpfs")])
def test_memory_tells_why_no_directory_will_do(monkeypatch: pytest.MonkeyPatch, mounted: bool, how: str) -> None:
    def memory_directory(needed: int) -> Path:
        raise UmlError("no place: /dev/shm is mounted noexec", "set TMPDIR")

    monkeypatch.setattr(doctor, "memory_directory", memory_directory)
    monkeypatch.setattr(Path, "is_mount", lambda path: mounted)
    check = found("memory")
    assert (check.ok, check.required, check.found) == (False, True, "no place: /dev/shm is mounted noexec")
    assert check.mend is not None
    assert how in check.mend


@pytest.mark.parametrize(("scope", "mended"), [("3\n", True), ("1\n", False), (None, False)])
def test_ptrace_forbidden(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, scope: str | None, mended: bool) -> None:
    refusing = tmp_path / "python"
    refusing.write_text("#!/bin/sh\nexit 1\n")
    refusing.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(refusing))
    monkeypatch.setattr(doctor, "PTRACE_SCOPE", tmp_path / "scope")
    if scope:
        (tmp_path / "scope").write_text(scope)
    check = found("ptrace")
    assert not check.ok
    assert (check.mend is not None) == mended


@pytest.mark.parametrize("named", [True, False])
def test_busybox_that_was_named_is_no_matter_of_packages(monkeypatch: pytest.MonkeyPatch, named: bool) -> None:
    def find_busybox() -> Path:
        raise UmlError("no static busybox on this host")

    monkeypatch.setattr(doctor, "find_busybox", find_busybox)
    monkeypatch.setenv("UML_BUSYBOX", "/bin/ls" if named else "")
    check = found("busybox")
    assert (check.ok, check.required, check.found) == (False, True, "no static busybox on this host")
    assert (check.mend is None) == named


def test_what_only_mounts_need_is_not_required(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plain = tmp_path / "fusermount3"
    plain.touch()
    monkeypatch.setattr(doctor, "FUSERMOUNT", plain)
    monkeypatch.setattr(doctor, "FUSE_DEVICE", tmp_path / "fuse")
    monkeypatch.setattr(doctor, "MTAB", tmp_path / "mtab")
    monkeypatch.setitem(sys.modules, "pyfuse3", None)
    missing = {check.name for check in diagnose() if not check.ok} - {"jail: cgroup"}  # few logins have it
    assert missing == {"fusermount3", str(tmp_path / "fuse"), str(tmp_path / "mtab"), "pyfuse3"}
    assert can_run(diagnose())


def test_fusermount_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "FUSERMOUNT", tmp_path / "fusermount3")
    assert found("fusermount3").mend is not None


def test_closed_device_is_opened_by_chmod(monkeypatch: pytest.MonkeyPatch) -> None:
    really_open = os.open

    def refuse(path: Path | str, *args: int, dir_fd: int | None = None) -> int:
        if path == doctor.FUSE_DEVICE:
            raise PermissionError(13, "Permission denied", str(path))
        return really_open(path, *args, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", refuse)
    check = found("/dev/fuse")
    assert check.found == "Permission denied"
    assert check.mend is not None
    assert check.mend.endswith("chmod 666 /dev/fuse")


def test_mending_takes_sudo_for_an_ordinary_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "find_kernel", no_such_kernel)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert found("kernel").mend == "sudo apt-get install user-mode-linux"
