"""How a kernel is told to run its guest, and what one that cannot do it is spared."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.kernels import execution
from runtime.kernels.execution import Execution, words
from runtime.kernels.features import Features
from runtime.kernels.kernel import Kernel
from umlfs.errors import UmlError, UsageError

KERNEL = Kernel(Path("/linux"), "9.9", None)


@pytest.fixture(params=["", "seccomp", "seccomp ncpus time-travel"])
def known(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> frozenset[str]:
    found = frozenset(request.param.split())
    monkeypatch.setattr(execution, "features", lambda kernel: Features(kernel.version, found))
    return found


def test_seccomp(known: frozenset[str]) -> None:
    """By itself only in a jail; and a kernel that does not know the word never hears it."""
    if "seccomp" not in known:
        assert words(KERNEL, Execution(), jailed=True) == []
        assert words(KERNEL, Execution("off"), jailed=True) == []
        with pytest.raises(UmlError, match=r"Linux 9\.9 cannot do that"):
            words(KERNEL, Execution("on"), jailed=True)
        return
    assert words(KERNEL, Execution(), jailed=True) == ["seccomp=auto"]
    assert words(KERNEL, Execution(), jailed=False) == ["seccomp=off"]
    assert words(KERNEL, Execution("on"), jailed=False) == ["seccomp=on"]
    assert words(KERNEL, Execution("off"), jailed=True) == ["seccomp=off"]


def test_processors_and_time(known: frozenset[str]) -> None:
    for wanted, word in ((Execution("auto", 2), "ncpus=2"), (Execution("off", 1, "inf-cpu"), "time-travel=inf-cpu")):
        if "ncpus" in known:
            assert word in words(KERNEL, wanted, jailed=True)
        else:
            with pytest.raises(UmlError, match="build one: 'uml kernel build --flavour "):
                words(KERNEL, wanted, jailed=True)


def test_more_processors_than_there_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    built = Features("9.9", frozenset(["ncpus"]), {"CONFIG_NR_CPUS": "4"})
    monkeypatch.setattr(execution, "features", lambda kernel: built)
    assert words(KERNEL, Execution("auto", 4), jailed=True) == ["ncpus=4"]
    with pytest.raises(
        UmlError, match=r"--smp 5: Linux 9\.9 has at most 4 processors; build one: .* CONFIG_NR_CPUS=5'"
    ):
        words(KERNEL, Execution("auto", 5), jailed=True)


def test_several_processors_cannot_be_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel would not boot."""
    monkeypatch.setattr(execution, "features", lambda kernel: Features("9.9", frozenset(["ncpus", "seccomp"])))
    assert words(KERNEL, Execution("on", 2), jailed=False) == ["seccomp=on", "ncpus=2"]
    for wanted, jailed in ((Execution("off", 2), True), (Execution("auto", 2), False)):
        with pytest.raises(UsageError, match="--smp 2: needs guests whose processes are not traced; say --seccomp on"):
            words(KERNEL, wanted, jailed=jailed)


@pytest.mark.parametrize("wrong", [("x", 1, ""), ("on", 0, ""), ("on", 65, ""), ("on", 1, "y")])
def test_what_cannot_be_meant(wrong: tuple[str, int, str]) -> None:
    with pytest.raises(UsageError):
        Execution(*wrong)
