"""`uml top` and `uml kill`: processes of a guest, from the host."""

from __future__ import annotations

import pytest

from runtime.machines.processes import parse
from tests.machines.household import Household


@pytest.mark.guest
def test_processes_of_a_guest(me: Household) -> None:
    me.ok("boot", "-d", "umid=it", "mem=96M")
    try:
        script = "(exec -a quiet sleep 1000) >/dev/null 2>&1 & echo $!"
        pid = me.ok("exec", "it", "bash", "-c", script).strip()
        shown = me.ok("top", "it", "-n", "500", "--once")
        assert shown.splitlines()[1].split()[:2] == ["it", "host"]
        assert any(line.split()[0] == pid and line.split()[-1] == "sleep" for line in shown.splitlines()[2:])
        assert len(me.ok("top", "--once", "-n", "1").splitlines()) == 3
        me.ok("kill", "it", pid)
        assert me.error("kill", "it", pid) == (
            1,
            f"it: can't kill pid {pid}: No such process; 'uml top it' lists its processes",
        )
        assert me.error("kill", "it", "-s", "NOSUCH", pid)[0] == 2
        assert me.error("kill", "it", "0")[0] == 2
        assert me.error("top", "other") == (1, "other: no such machine is running; 'uml ps' lists those that run")
    finally:
        me.ok("halt", "it")


def test_lines_of_hostile_guests() -> None:
    stat = "S 1 1 1 0 -1 0 0 0 0 0 150 50 0 0 20 0 1 0 100 1000 25 0"
    found = parse(f"7 1000 1000|7 (a) b) {stat}")
    assert found is not None
    assert (found.pid, found.uid, found.name, found.state, found.cpu, found.memory) == (
        7,
        1000,
        "a) b",
        "S",
        2.0,
        102400,
    )
    for bad in ("", "7", "7 0", "7 0|", "7 0|7 (x) S", "x 0|7 (x) " + stat, f"7 |{stat}"):
        assert parse(bad) is None, bad
