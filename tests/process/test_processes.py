from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

from runtime.process.processes import MARK, LivenessPipe, fixed_addresses, kill_group, kill_marked

HELPER = "setsid sh -c 'echo ready; exec sleep 1000' & wait"
"""With a process outside of the group."""


def start(script: str, mark: str, pipe: LivenessPipe, *, session: bool = True) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        ["/bin/sh", "-c", script],
        stdout=subprocess.PIPE,
        start_new_session=session,
        pass_fds=[pipe.held],
        env={**os.environ, MARK: mark},
    )
    pipe.hand_over()
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.stdout.close()
    return process


def test_leash_tells_of_processes_outside_of_the_group(tmp_path: Path) -> None:
    pipe = LivenessPipe()
    process = start(HELPER, str(tmp_path), pipe)
    assert not pipe.is_free()
    kill_group(process.pid)
    assert process.wait() == -signal.SIGKILL
    assert not pipe.is_free(0.01)
    assert kill_marked(str(tmp_path)) == 1
    assert pipe.is_free(10)
    assert kill_marked(str(tmp_path)) == 0
    pipe.close()


def test_other_marks_are_left_alone(tmp_path: Path) -> None:
    pipe = LivenessPipe()
    process = start("echo ready; exec sleep 1000", f"{tmp_path}/12", pipe)
    assert kill_marked(f"{tmp_path}/1") == 0
    assert kill_marked(f"{tmp_path}/12") == 1
    assert process.wait() == -signal.SIGKILL
    assert pipe.is_free(10)
    pipe.close()


def test_helpers_of_a_dead_leader(tmp_path: Path) -> None:
    pipe = LivenessPipe()
    process = start("sleep 1000 & echo ready; wait", str(tmp_path), pipe)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not pipe.is_free()
    kill_group(process.pid)
    assert pipe.is_free(10)
    assert process.wait() == -signal.SIGKILL
    pipe.close()


def test_child_that_has_no_group_yet(tmp_path: Path) -> None:
    pipe = LivenessPipe()
    process = start("echo ready; exec sleep 1000", str(tmp_path), pipe, session=False)
    assert os.getpgid(process.pid) == os.getpgrp()
    kill_group(process.pid)
    assert process.wait() == -signal.SIGKILL
    pipe.close()


def test_nothing_there(tmp_path: Path) -> None:
    pipe = LivenessPipe()
    process = start("echo ready", str(tmp_path), pipe)
    process.wait()
    kill_group(process.pid)
    pipe.close()


def test_processes_that_are_no_children_and_lead_no_group(tmp_path: Path) -> None:
    pipe = LivenessPipe()
    process = start("sleep 1000 & echo ready; wait", str(tmp_path), pipe)
    (inner,) = (int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())
    kill_group(inner)
    assert os.getpgid(inner) == process.pid
    kill_group(process.pid)
    assert pipe.is_free(10)
    process.wait()
    pipe.close()


def test_addresses_are_fixed_for_children_only() -> None:
    before = Path("/proc/self/personality").read_text()
    with fixed_addresses():
        inside = subprocess.run(["cat", "/proc/self/personality"], capture_output=True, text=True, check=True).stdout
    assert int(inside, 16) & 0x0040000
    assert Path("/proc/self/personality").read_text() == before
