"""uml_mconsole: the client of the management console."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from runtime.cli import answers, open_standard_descriptors
from runtime.cli.historical.frame import complain, why
from runtime.mconsole.commands import NO_PID, CommandSession, Quit
from runtime.mconsole.sockets import candidates
from runtime.mconsole.wire import Reply
from umlfs.errors import UmlError

USAGE = "Usage : uml_mconsole socket-name [command]"
NOBODY = "[None]"
"""The name of no machine."""


class _Shown:
    def reply(self, reply: Reply) -> None:
        answers.write(f"{'ERR' if reply.err else 'OK'} {reply.text}\n")

    def say(self, text: str) -> None:
        print(text, flush=True)


class NoMachine(UmlError):
    """There is no such machine, as has been said."""


def _find(name: str) -> Path:
    """The machine's socket; what is not there gets a warning. NoMachine."""
    for path in candidates(name) if name != NOBODY else ():
        try:
            os.stat(path)
        except OSError as error:
            complain(f"Warning: couldn't stat file: {path} - {why(error)}")
        else:
            return Path(path)
    raise NoMachine("Sending command to '' : Invalid argument")


def _say(error: Exception) -> int:
    """What went wrong, in the words of old; gives the exit status."""
    if isinstance(error, UmlError) and error.what == NO_PID:
        print(NO_PID)
        return 0
    cause = error.__cause__
    if isinstance(error, UmlError) and isinstance(cause, OSError):
        return complain(f"Sending command to '{error.what.partition(':')[0]}' : {why(cause)}")
    if isinstance(error, OSError):
        return complain(f"opening file: {why(error)}")
    return complain(str(error))


def run(arguments: Sequence[str]) -> int:
    """Do what the arguments say; gives the exit status."""
    if not arguments:
        return complain(USAGE)
    answers.take_any_bytes()
    session = CommandSession(arguments[0], _Shown(), find=_find)
    try:
        session.find()
    except NoMachine:
        session.name = NOBODY
    if len(arguments) == 1:
        from runtime.mconsole.interactive import interact  # a single request needs no prompt

        interact(session, _say)
        return 0
    try:
        return session.run(" ".join(arguments[1:])) & 0xFF
    except Quit:
        return 0
    except (OSError, UmlError) as error:
        return _say(error)


def main() -> NoReturn:
    """The entry point of the program."""
    open_standard_descriptors()
    sys.exit(run(sys.argv[1:]))
