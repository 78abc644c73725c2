"""`uml exec` into one machine, with every pair of what can be asked of it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from typing import Final

import pytest

from tests.combinations.pairs import Row, named, rows
from tests.combinations.test_runs import on_terminal
from tests.machines.household import Household, household
from tests.ordinary import OrdinaryUser

pytestmark = pytest.mark.guest

AXES: Final = {
    "command": ("works", "fails", "killed", "missing", "no program", "directory", "reads", "loud"),
    "streams": ("pipes", "null", "closed input", "closed output", "terminal", "same"),
    "flags": ("none", "-i", "-t", "-it"),
    "user": ("none", "nobody", "0", "no-such"),
    "pwd": ("none", "/etc", "/nowhere", "relative"),
    "env": ("none", "A=b c", "HOME", "1=2"),
}
COMMANDS: Final = {
    "works": (["sh", "-c", "echo works"], 0),
    "fails": (["sh", "-c", "exit 7"], 7),
    "killed": (["sh", "-c", "kill -9 $$"], 137),
    "missing": (["no-such-command"], 127),
    "no program": (["/etc/passwd"], 126),
    "directory": (["/etc"], 126),
    "reads": (["head", "-n", "1"], 0),
    "loud": (["sh", "-c", "echo out; echo err >&2; head -c 100000 /dev/zero"], 0),
}
BOUND: Final = 60


@pytest.fixture(scope="module")
def machine(user: OrdinaryUser) -> Iterator[Household]:
    """A machine of an ordinary user's that is up."""
    with household(user if os.geteuid() == 0 else None) as house:
        house.ok("boot", "-d", "umid=it", "mem=64M", "--mount", "/a/new place=/etc:ro")
        yield house
        house.ok("halt", "it")


@pytest.mark.parametrize("row", [pytest.param(row, id=named(row)) for row in rows(AXES)])
def test_a_combination(row: Row, machine: Household) -> None:
    done = run(machine, row)
    said = done.stderr.decode(errors="replace")
    assert "Traceback" not in said
    assert "internal error" not in said
    assert done.returncode == expected(row), (done.stdout, said)
    both = done.stdout.decode(errors="replace") + said
    ours = [line for line in both.splitlines() if line.startswith("uml: ")]
    assert len(ours) == (1 if expected(row) in (2, 125, 126, 127) else 0), said


def run(machine: Household, row: Row) -> subprocess.CompletedProcess[bytes]:
    options = [] if row["flags"] == "none" else [row["flags"]]
    for name in ("user", "pwd", "env"):
        options += [f"--{name}", row[name]] if row[name] != "none" else []
    command = machine.command("exec", *options, "it", "--", *COMMANDS[row["command"]][0])
    return with_streams(command, row["streams"])


def with_streams(command: Sequence[str], kind: str) -> subprocess.CompletedProcess[bytes]:
    if kind == "terminal":
        return on_terminal(command)
    shell = {"closed input": '"$@" <&-', "closed output": '"$@" >&-', "same": '"$@" 2>&1 >/dev/null'}.get(kind)
    words = list(command) if shell is None else ["sh", "-c", shell, "sh", *command]
    typed = b"typed\n" if kind == "pipes" else b""
    return subprocess.run(words, input=typed, capture_output=True, timeout=BOUND, check=False)


def expected(row: Row) -> int:
    """The exit status: the first of what is wrong, or the command's own."""
    if row["env"] == "1=2" or row["pwd"] == "relative":
        return 2
    if "t" in row["flags"] and row["streams"] != "terminal":
        return 2
    if row["user"] == "no-such" or row["pwd"] == "/nowhere":
        return 125
    return COMMANDS[row["command"]][1]
