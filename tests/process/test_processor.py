"""Where a kernel's processes are, and this one with them."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio

from runtime.process import processor
from runtime.process.processor import ProcessorChoice

ELSEWHERE = 4095
WHERE = "import os; print(list(os.sched_getaffinity(0)))"
SPIN = "import os, sys\nos.fork()\nprint(flush=True)\nwhile True: pass"


@contextmanager
def busy() -> Iterator[int]:
    """Two processes that want a processor each, as a kernel and its guest may; the number of the parent."""
    with subprocess.Popen([sys.executable, "-c", SPIN], stdout=subprocess.PIPE, start_new_session=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.read(2) == b"\n\n"
            yield process.pid
        finally:
            os.killpg(process.pid, 9)


def everybody(kernel: int) -> list[set[int]]:
    return [os.sched_getaffinity(pid) for pid in processor._processes(kernel)]


def test_all_of_a_kernel_on_one_processor() -> None:
    before = os.sched_getaffinity(0)
    with busy() as kernel:
        choice = ProcessorChoice(kernel)
        assert choice.processor in before
        assert everybody(kernel) == [{choice.processor}] * 2
        assert os.sched_getaffinity(0) == before
        choice.leave()


def test_this_process_with_it() -> None:
    before = os.sched_getaffinity(0)
    with processor.shared(), busy() as one, busy() as other:
        first, second = ProcessorChoice(one), ProcessorChoice(other)
        assert os.sched_getaffinity(0) == {second.processor}
        first.leave()
        assert os.sched_getaffinity(0) == {second.processor}
        second.leave()
        assert os.sched_getaffinity(0) == before


def test_what_has_nothing_to_do_with_it() -> None:
    """Processes of others, started here, may run where this one might; and it stays where it is."""
    before = os.sched_getaffinity(0)
    with processor.shared(), busy() as kernel:
        choice = ProcessorChoice(kernel)
        with processor.free_to_choose():
            printed = subprocess.run([sys.executable, "-c", WHERE], stdout=subprocess.PIPE, check=True)
        assert set(json.loads(printed.stdout)) == before
        assert os.sched_getaffinity(0) == {choice.processor}
        choice.leave()
    with processor.free_to_choose():
        assert os.sched_getaffinity(0) == before


def test_a_kernel_that_is_gone() -> None:
    with busy() as kernel:
        pass
    choice = ProcessorChoice(kernel)
    assert choice.processor is None
    choice.leave()


async def test_a_move_from_a_crowd(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that spin on one processor are crowded there; another idles, or so we say."""
    monkeypatch.setattr(processor, "SECONDS", 0.1)
    with busy() as kernel:
        choice = ProcessorChoice(kernel)
        assert choice.processor is not None
        choice._allowed = {choice.processor, ELSEWHERE}
        first, looks, taken = choice.processor, itertools.count(), trio.Event()
        monkeypatch.setattr(processor, "_idle", lambda: {first: 0.0, ELSEWHERE: next(looks) * 10.0})
        monkeypatch.setattr(choice, "_take", lambda chosen: taken.set() if chosen == ELSEWHERE else None)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(choice.keep)
            with trio.fail_after(60):
                await taken.wait()
            nursery.cancel_scope.cancel()
        choice.leave()


def test_what_the_host_counts() -> None:
    assert set(processor._idle()) >= os.sched_getaffinity(0)
    assert all(seconds >= 0 for seconds in processor._idle().values())
