"""The host's end of a line: what is kept, who is waited for, and what is typed."""

from __future__ import annotations

import contextlib
import os
import struct
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from runtime.consoles.hostend import KEPT, PIECE
from runtime.consoles.spec import BOOT_CONSOLE, Line, LineKind
from runtime.consoles.tty_log import HEADER, Direction, Operation, Record, TtyLog, records
from tests.consoles.guest import Guest, eventually, guest

CON1 = Line(LineKind.CONSOLE, 1)


async def read(guest: Guest, line: Line, count: int) -> bytes:
    got = b""
    with guest.consoles.attach(line) as reader, trio.fail_after(60):
        while len(got) < count:
            got += await reader.read()
    return got


async def test_what_was_said_before_is_replayed() -> None:
    async with guest("con1=null") as it:
        await it.say("con1", b"hello ")
        await eventually(lambda: it.consoles.end(CON1).said == 6)
        await it.say("con1", b"there")
        assert await read(it, CON1, 11) == b"hello there"
        assert await read(it, CON1, 11) == b"hello there"


async def test_a_flood_that_nobody_reads_goes_by() -> None:
    """The guest is not held up, and no more than the end is kept."""
    said = b"".join(b"%08d" % number for number in range(50_000))
    async with guest("con0=null") as it:
        await it.say("con0", said)
        end = it.consoles.end(BOOT_CONSOLE)
        await eventually(lambda: end.said == len(said))
        assert await read(it, BOOT_CONSOLE, KEPT) == said[-KEPT:]


async def test_a_reader_gets_everything() -> None:
    """More than is kept, to two of different speed, one of which comes from the start and waits for nothing."""
    said = os.urandom(20 * KEPT)
    got: dict[int, bytes] = {0: b"", 1: b""}

    async def listen(number: int) -> None:
        with it.consoles.end(BOOT_CONSOLE).reader(patient=True) as reader:
            while len(got[number]) < len(said):
                got[number] += await reader.read()
                for _ in range(number * 3):
                    await trio.lowlevel.checkpoint()
            assert reader.skipped == 0

    async with guest("con0=null") as it, trio.open_nursery() as nursery:
        nursery.start_soon(listen, 0)
        nursery.start_soon(listen, 1)
        await trio.testing.wait_all_tasks_blocked()
        await it.say("con0", said)
    assert got == {0: said, 1: said}


async def test_an_absent_reader_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that takes nothing is given up, and goes on with the oldest that is kept."""
    monkeypatch.setattr("runtime.consoles.hostend.PATIENCE", 0.05)
    said = os.urandom(10 * KEPT)
    async with guest("con0=null") as it:
        end = it.consoles.end(BOOT_CONSOLE)
        with end.reader() as reader:
            await it.say("con0", said)
            await eventually(lambda: end.said == len(said))
            got = b""
            while len(got) < KEPT:
                got += await reader.read()
            assert got == said[-KEPT:]
            assert reader.skipped == len(said) - KEPT
            assert not reader.absent


async def test_the_last_words_are_not_lost() -> None:
    said = os.urandom(KEPT // 2)
    async with trio.open_nursery() as nursery:
        async with guest("con0=null") as it:
            with it.consoles.attach(BOOT_CONSOLE) as reader:
                await it.say("con0", said[:PIECE])
                os.write(it.fd("con0"), said[PIECE : PIECE + 2000])
                nursery.cancel_scope.deadline = trio.current_time() + 60
        got = b""
        while data := await reader.read():
            got += data
        assert got == said[: PIECE + 2000]


async def test_typing_waits_for_the_guest(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be given up, and then the next one types."""
    monkeypatch.setattr("runtime.consoles.hostend.PATIENCE", 0.05)
    async with guest("con1=null") as it:
        end = it.consoles.end(CON1)
        asked = 0

        def still_there() -> bool:
            nonlocal asked
            asked += 1
            return asked < 3

        monkeypatch.setattr("runtime.consoles.hostend.TYPED_AT_ONCE", 1_000_000)
        await end.type(b"x" * 1_000_000, still_there)
        assert asked == 3
        with trio.move_on_after(0.2) as scope:
            await end.type(b"y" * 1_000_000)
        assert scope.cancelled_caught


async def test_typing_arrives_whole_and_in_turn() -> None:
    one, two = b"1" * 5000, b"2" * 5000
    async with guest("con1=null") as it, trio.open_nursery() as nursery:
        nursery.start_soon(it.consoles.end(CON1).type, one)
        nursery.start_soon(it.consoles.end(CON1).type, two)
        got = await it.hear("con1", len(one) + len(two))
    assert got in (one + two, two + one)


async def test_nothing_is_echoed_before_the_guest_opens_the_line() -> None:
    async with guest("con1=null") as it:
        await it.consoles.end(CON1).type(b"early\r\x03\xff")
        await it.heard("con1", b"early\r\x03\xff")
        assert it.consoles.end(CON1).said == 0


async def test_sizes() -> None:
    async with guest("con1=null") as it:
        it.consoles.end(CON1).resize(24, 80)
        assert it.size("con1") == (24, 80)
        for rows, columns in ((0, 80), (24, 0), (-1, 5), (70000, 5)):
            it.consoles.end(CON1).resize(rows, columns)
        assert it.size("con1") == (24, 80)


async def test_terminal_logs(tmp_path: Path) -> None:
    async with guest("con1=null", log_directory=tmp_path) as it:
        await it.say("con1", b"login: ")
        await eventually(lambda: it.consoles.end(CON1).said == 7)
        await it.consoles.end(CON1).type(b"root\r")
    assert (tmp_path / "con1").stat().st_mode & 0o777 == 0o600
    log = list(records((tmp_path / "con1").read_bytes()))
    assert [(each.operation, each.direction, each.data) for each in log] == [
        (Operation.OPEN, Direction.NONE, bytes(4)),
        (Operation.WRITE, Direction.WRITTEN, b"login: "),
        (Operation.WRITE, Direction.READ, b"root\r"),
        (Operation.CLOSE, Direction.NONE, b""),
    ]
    assert {each.tty for each in log} == {0x401}
    assert log[0].nanoseconds <= log[-1].nanoseconds
    assert len(list(records((tmp_path / "con0").read_bytes()))) == 2


def test_the_format_of_terminal_logs() -> None:
    record = Record(Operation.WRITE, 0x401, Direction.READ, 1_700_000_000_123_456_000, b"ls\r")
    assert record.encode() == struct.pack("=iIiiII", 3, 0x401, 3, 1, 1_700_000_000, 123_456) + b"ls\r"
    wire = record.encode() * 2
    assert list(records(wire)) == [record, record]
    assert list(records(wire[:-1])) == [record]
    assert list(records(wire[:30])) == [record]
    for broken in (b"\xff" * 24, struct.pack("=iIiiII", 9, 0, 0, 0, 0, 0), struct.pack("=iIiiII", 3, 0, -1, 0, 0, 0)):
        with pytest.raises(ValueError, match=r"terminal log|not a valid"):
            list(records(broken))


@given(st.binary(max_size=100) | st.binary(max_size=60).map(lambda data: struct.pack("=iIi", 3, 1, 20) + data))
def test_anything_is_a_terminal_log_or_an_error(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert sum(HEADER.size + len(record.data) for record in records(data)) <= len(data)


@pytest.mark.logs_warnings
async def test_a_log_on_a_full_disk(caplog: pytest.LogCaptureFixture) -> None:
    log = TtyLog(Path("/dev/full"), 1)
    await log.wrote(Direction.READ, b"x")
    await log.wrote(Direction.READ, b"x")
    log.close()
    assert caplog.messages == ["/dev/full: the terminal log has gaps: No space left on device"]
