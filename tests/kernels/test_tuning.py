from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.host import cache
from runtime.kernels.features import Features
from runtime.kernels.kernel import Kernel, find_kernel
from runtime.kernels.tuning import LPJ_RANGE, Tuning, command_line, known_lpj, remember_lpj, skippable, tuning
from umlfs.errors import UsageError

LOG = b"NR_IRQS: 64\r\nCalibrating delay loop... 7352.01 BogoMIPS (lpj=36760064)\r\nChecking that host ptys\r\n"


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    path = tmp_path / "linux"
    path.touch()
    return Kernel(path, "6.1", None)


def test_lpj_is_remembered(kernel: Kernel) -> None:
    assert known_lpj(kernel) is None
    assert remember_lpj(kernel, LOG) == 36760064
    assert known_lpj(kernel) == 36760064
    assert "lpj=36760064" in tuning(kernel, raid=True).arguments()


def test_another_kernel_has_its_own(kernel: Kernel) -> None:
    remember_lpj(kernel, LOG)
    kernel.path.write_bytes(b"changed")
    assert known_lpj(kernel) is None


@pytest.mark.parametrize("text", [b"", b"0", b"-5", b"9999", b"1000000000", b"12e6", b"\xff\xfe", b"99999999999999999"])
def test_corrupt_memory_is_not_believed(kernel: Kernel, text: bytes) -> None:
    remember_lpj(kernel, LOG)
    root = cache.directory()
    assert root is not None
    (stored,) = root.glob("lpj-*")
    stored.write_bytes(text)
    assert known_lpj(kernel) is None


@pytest.mark.parametrize(
    "log",
    [
        b"",
        b"Calibrating delay loop (skipped) preset value.. 7310.54 BogoMIPS (lpj=36552704)",
        b"Calibrating delay loop... 0.00 BogoMIPS (lpj=0)",
        b"Calibrating delay loop... 1.00 BogoMIPS (lpj=9999999999)",
    ],
)
def test_logs_that_tell_nothing(kernel: Kernel, log: bytes) -> None:
    assert remember_lpj(kernel, log) is None
    assert known_lpj(kernel) is None


@given(st.binary(max_size=200))
def test_any_log(log: bytes) -> None:
    kernel = Kernel(Path("/bin/sh"), "6.1", None)
    value = remember_lpj(kernel, b"Calibrating delay loop... " + log)
    assert value is None or value in LPJ_RANGE


def test_what_is_skipped() -> None:
    """All that uses RAID-6 goes together with what it needs, or nothing does."""
    stock = Features("6", frozenset(), {"CONFIG_RAID6_PQ_BENCHMARK": "y", "CONFIG_XOR_BLOCKS": "y"})
    assert {"raid6_select_algo", "init_btrfs_fs", "raid5_init", "calibrate_xor_blocks"} < set(skippable(stock))
    quick = Features("7", frozenset(), {"CONFIG_XOR_BLOCKS": "y"})
    assert skippable(quick) == ("calibrate_xor_blocks",)
    assert skippable(Features("7", frozenset())) == ()
    assert Tuning(1, ("a", "b")).arguments()[-1] == "initcall_blacklist=a,b"
    assert not any("blacklist" in word for word in Tuning(1).arguments())


def test_the_installed_kernel() -> None:
    kernel = find_kernel()
    assert "init_btrfs_fs" in tuning(kernel).skipped
    assert tuning(kernel, raid=True).skipped == ()


def test_command_line_is_passed_on() -> None:
    assert command_line(iter(["mem=64M", "con0=fd:0,fd:1"])) == ["mem=64M", "con0=fd:0,fd:1"]


@pytest.mark.parametrize("word", ["", "a b", "a\tb", "a\nb", "a\0b", 'a"b', "a\x7f", "a\u00a0b"])
def test_words_that_the_kernel_cannot_take(word: str) -> None:
    with pytest.raises(UsageError, match="cannot be given to the kernel"):
        command_line(["mem=64M", word])


def test_limit_of_the_command_line() -> None:
    longest = 4095 - len(" root=98:0 console=tty0") - 1
    assert command_line(["x" * longest])
    with pytest.raises(UsageError, match="too long"):
        command_line(["x" * (longest + 1)])
    with pytest.raises(UsageError, match="too long"):
        command_line(["ä" * (longest // 2 + 1)])
