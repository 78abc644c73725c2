"""The machines of a class, all at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import trio

from runtime.machines import client
from runtime.machines.capture import capture
from runtime.machines.starting import start
from runtime.web import classes
from runtime.web.classes import Class
from umlfs.errors import UmlError, described, sole

AT_ONCE: Final = 4
"""Machines that are booted or ended at the same time."""
HALT_SECONDS: Final = 30.0
"""How long a guest may do nothing before it is ended by force."""

GONE_SECONDS: Final = 10.0
"""How long what looks after a machine may take to end when its guest has."""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of it for one student."""

    student: str
    ok: bool
    text: str


async def start_all(lesson: Class) -> list[Result]:
    """Boot the machines that do not run."""

    async def one(student: str) -> Result:
        if classes.running(lesson, student):
            return Result(student, True, "runs already")
        await start(machine_of(lesson, student))
        return Result(student, True, "runs")

    return await _each(lesson, one)


def machine_of(lesson: Class, student: str) -> dict[str, object]:
    """The description of a student's machine."""
    lesson.student(student)
    return {"umid": lesson.umid(student), "root": f"cow:{lesson.cow(student)}", "memory": lesson.memory}


async def halt_all(lesson: Class) -> list[Result]:
    """End the machines that run."""

    async def one(student: str) -> Result:
        if not classes.running(lesson, student):
            return Result(student, True, "does not run")
        await halt(lesson, student)
        return Result(student, True, "ended")

    return await _each(lesson, one)


async def halt(lesson: Class, student: str) -> None:
    """End a student's machine. UmlError."""
    request = {"do": "power", "action": "halt", "seconds": HALT_SECONDS}
    await client.ask(client.find(lesson.umid(student)), request)
    with trio.move_on_after(GONE_SECONDS):
        while classes.running(lesson, student):  # noqa: ASYNC110 - its lock is let go without a word
            await trio.sleep(0.05)


async def run_in_all(lesson: Class, command: Sequence[str], seconds: float) -> list[Result]:
    """Run a command in each machine; its output is the text, and `ok` if its exit status is 0."""

    async def one(student: str) -> Result:
        outcome = await capture(client.find(lesson.umid(student)), command, seconds)
        cut = "\n(more was said)" if outcome.cut else ""
        return Result(student, outcome.status == 0, outcome.output + cut)

    return await _each(lesson, one)


async def reset(lesson: Class, student: str) -> None:
    """A student's machine begins anew with the image; it runs afterwards if it did. UmlError."""
    ran = classes.running(lesson, student)
    if ran:
        await halt(lesson, student)
    await trio.to_thread.run_sync(classes.reset, lesson, student)
    if ran:
        await start(machine_of(lesson, student))


async def _each(lesson: Class, work: Callable[[str], Awaitable[Result]]) -> list[Result]:
    """Do `work` for all students, some at a time. What fails for one is told, and the others go on."""
    limit = trio.CapacityLimiter(AT_ONCE)
    found: dict[str, Result] = {}

    async def one(student: str) -> None:
        async with limit:
            try:
                found[student] = await work(student)
            except (UmlError, OSError, BaseExceptionGroup) as error:
                cause = sole(error)
                if not isinstance(cause, UmlError | OSError):
                    raise
                found[student] = Result(student, False, described(cause) if isinstance(cause, OSError) else str(cause))

    async with trio.open_nursery() as nursery:
        for student in lesson.students:
            nursery.start_soon(one, student.name)
    return [found[student.name] for student in lesson.students]
