"""Where a machine runs on the host: applied to a process of its own, and clear words where that cannot be."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from runtime.machines.description import Description
from runtime.machines.placement import NODES, Placement, parse_bytes, parse_cpus, parse_quota
from runtime.process.share import Share, parse_share
from tests.ordinary import ROOT
from umlfs.errors import UsageError

APPLY = """
import os, sys
from runtime.machines.description import Description
from runtime.machines.placement import Placement
from umlfs.errors import UmlError
try:
    with Placement.of(Description({})).applied("test"):
        print(sorted(os.sched_getaffinity(0)), os.nice(0))
except UmlError as error:
    print(error)
"""


def applied(what: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-c", APPLY.format(what)]
    return subprocess.run(line, env=environment, check=True, capture_output=True, text=True).stdout.strip()


def test_processors_and_priority() -> None:
    last = max(os.sched_getaffinity(0))
    nice = min(os.nice(0) + 3, 19)
    assert applied(f"cpus='{last}', nice={nice}") == f"[{last}] {nice}"


def test_what_the_host_does_not_have() -> None:
    assert "--numa 999: no such node" in applied("numa='999'")
    said = applied("memory_max='300M', cpu_quota='50%'")
    assert said.startswith(("[", "--cpu-quota and --memory-max: "))


def test_memory_of_a_node() -> None:
    said = applied("numa='0'")
    assert said.startswith("[" if (NODES / "node0").is_dir() else "--numa 0: no such node")


def test_shares() -> None:
    assert parse_share("cpu=1.5,mem=1G,io=50") == Share(150, 1 << 30, 50)
    assert parse_share("web:cpu=2") == Share(200, None, None, "web")
    limits = {"cpu.max": "150000 100000", "memory.max": str(1 << 30), "io.weight": "default 50"}
    assert parse_share("cpu=1.5,mem=1G,io=50").limits() == limits


def test_words() -> None:
    mine = sorted(os.sched_getaffinity(0))
    assert parse_cpus(f"{mine[0]}-{mine[0]},{mine[-1]}") == tuple(sorted({mine[0], mine[-1]}))
    assert (parse_quota("150%"), parse_bytes("300M"), parse_bytes("7")) == (150, 300 << 20, 7)
    assert Placement.of(Description()) == Placement()


@pytest.mark.parametrize(
    "description",
    [
        Description(cpus="x"),
        Description(cpus="99999"),
        Description(cpus="3-1"),
        Description(nice=20),
        Description(numa="x"),
        Description(cpu_quota="50"),
        Description(cpu_quota="0%"),
        Description(memory_max="0"),
        Description(memory_max="3X"),
        Description(share="cpu=1", cpu_quota="50%"),
        *(
            Description(share=text)
            for text in ("web", "cpu", "cpu=0", "cpu=nan", "mem=x", "io=0", "io=10001", "cpu=1,cpu=2", "A b:cpu=1")
        ),
    ],
)
def test_what_cannot_be_meant(description: Description) -> None:
    with pytest.raises(UsageError):
        Placement.of(description)
