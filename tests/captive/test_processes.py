"""Things outside as processes of a guest."""

from __future__ import annotations

import pytest
import trio

from runtime.captive import Limits, captive
from umlfs.errors import UsageError

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
