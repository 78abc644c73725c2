"""A process that goes on in the background once it has said that it is ready."""

from __future__ import annotations

import gc
import json
import os
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

from umlfs.errors import UmlError, described

Work = Callable[[Callable[[], None]], None]
"""Gets a function to be called once it is ready, and goes on after that."""


def start(work: Work, *, directory: str | None = "/") -> int:
    """Run `work` in a process of its own, a session leader; returns its pid once it says that it is ready.

    Its failure until then is raised here: UmlError. From then on its standard streams are /dev/null, and it is in
    `directory` (with None, where the caller is). To be called while this process has no other thread and no event loop.
    """
    reader, writer = os.pipe()
    # What is loaded by now stays: a collector that looks at it would have the kernel copy every page for the child.
    gc.freeze()
    child = os.fork()
    if not child:
        os.close(reader)
        _detach(work, writer, directory)
    gc.unfreeze()
    os.close(writer)
    os.waitpid(child, 0)
    with open(reader, "rb") as answers:
        content = answers.read()
    if not content:
        raise UmlError("the process in the background ended without a word", "'--foreground' shows what it says")
    answer = json.loads(content)
    if "pid" in answer:
        return int(answer["pid"])
    raise UmlError(answer["what"], answer["way_out"], status=answer["status"], details=answer["details"])


def _detach(work: Work, writer: int, directory: str | None) -> NoReturn:
    """Become a process whose parent is nobody's concern, and work there."""
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        os._exit(_run(work, writer, directory))
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def _run(work: Work, writer: int, directory: str | None) -> int:
    reported = False

    def ready() -> None:
        nonlocal reported
        reported = True
        null = os.open(os.devnull, os.O_RDWR)
        for fd in range(3):
            os.dup2(null, fd)
        os.close(null)
        if directory is not None:
            os.chdir(directory)
        _tell(writer, {"pid": os.getpid()})

    try:
        work(ready)
    except BaseException as error:
        if not reported:
            _tell(writer, _failure(error))
        return 1
    return 0


def _tell(writer: int, answer: dict[str, object]) -> None:
    os.write(writer, json.dumps(answer).encode())
    os.close(writer)


def _failure(error: BaseException) -> dict[str, object]:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, UmlError):
        return {"what": error.what, "way_out": error.way_out, "status": error.status, "details": error.details}
    if os.environ.get("UML_DEBUG"):
        traceback.print_exception(error, file=sys.stderr)
    if isinstance(error, OSError):
        return {"what": described(error), "way_out": None, "status": 1, "details": ""}
    what, way_out = f"internal error: {type(error).__name__}: {error}", "'--foreground' shows where, please report it"
    return {"what": what, "way_out": way_out, "status": 1, "details": ""}
