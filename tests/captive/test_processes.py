"""Things outside as processes of a guest."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
import trio

from runtime.captive import Limits, captive, outside
from tests.ordinary import ROOT
from umlfs.errors import UmlError, UsageError

UML = (sys.executable, "-c", "from runtime.cli import main; main()")

pytestmark = pytest.mark.guest


async def test_a_process_that_stands_for_something() -> None:
    send, heard = trio.open_memory_channel[tuple[str, int]](16)

    async def on_signal(number: int) -> None:
        await send.send(("signal", number))

    async def on_nice(number: int) -> None:
        await send.send(("nice", number))

    async def on_exit(number: int) -> None:
        await send.send(("exit", number))

    async with captive(limits=Limits(memory=96 << 20)) as guest:
        first = await guest.processes.add("sshd", on_signal=on_signal, on_nice=on_nice, on_exit=on_exit)
        second = await guest.processes.add("web")
        pid = str(first.pid)
        assert (await guest.run(["ps", "-o", "comm=", "-p", pid])).stdout == b"sshd\n"
        with trio.fail_after(60):
            for signal, number in (("TERM", 15), ("STOP", 19), ("CONT", 18)):
                await guest.run(["kill", "-s", signal, pid], check=True)
                assert await heard.receive() == ("signal", number)
            await guest.run(["renice", "-n", "5", "-p", pid], check=True)
            assert await heard.receive() == ("nice", 5)
            await guest.run(["kill", "-s", "KILL", pid], check=True)
            assert await heard.receive() == ("exit", 9)
            await second.exit(3)
        assert second.over
        assert (await guest.run(["ps", "-p", str(second.pid)])).returncode == 1
        await first.exit()
        with pytest.raises(UsageError):
            await guest.processes.add("")


IN_THE_GUEST = """
until_is() { until [ "$(ps -o "$1=" -p "$2" | tr -d ' ')" = "$3" ]; do sleep 0.1; done; }
it=$(pgrep -x it) job=$(pgrep -x job)
ps -o comm=,uid= -p "$it"
kill -s STOP "$it" && renice -n 5 -p "$it" >/dev/null
until_is stat "$it" TN
read -r line && echo "$line"
kill -s CONT "$it"; until_is stat "$it" SN; echo continued
kill "$job"; while kill -0 "$job" 2>/dev/null; do sleep 0.1; done; echo gone
kill "$it"; while kill -0 "$it" 2>/dev/null; do sleep 0.1; done
exit 7
"""


@pytest.mark.guest
def test_processes_of_the_host() -> None:
    with subprocess.Popen(["sleep", "1000"]) as it:
        things = ["--process", f"it=pid:{it.pid}", "--process", "job=exec:sleep 1000"]
        line = [*UML, "run", "--mem", "96M", *things, "--", "sh", "-c", IN_THE_GUEST]
        with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as run:
            assert run.stdin is not None
            assert run.stdout is not None
            assert run.stdout.readline().split() == ["it", str(os.getuid())]
            while psutil.Process(it.pid).status() != psutil.STATUS_STOPPED or os.getpriority(0, it.pid) != 5:
                time.sleep(0.1)
            run.stdin.write("stopped\n")
            run.stdin.flush()
            assert run.stdout.read().splitlines() == ["stopped", "continued", "gone"]
        assert run.returncode == 7
        assert it.wait() == -signal.SIGTERM


@pytest.mark.parametrize("text", ["", "x", "x=", "x=pid", "x=pid:", "x=pid:y", "=pid:1", "x=file:y", "x=pid:-1"])
def test_words_that_name_nothing(text: str) -> None:
    with pytest.raises(UsageError):
        outside.parse(text)


async def test_what_does_not_run() -> None:
    gone = await trio.lowlevel.open_process(["true"])
    await gone.wait()
    with pytest.raises(UmlError, match="no such process runs"):
        await outside.found(outside.Word("it", "pid", str(gone.pid)))
    with pytest.raises(UmlError, match="no such machine"):
        await outside.found(outside.Word("it", "machine", "surely-not"))
