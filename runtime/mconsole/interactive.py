"""The prompt of the mconsole programs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Final

from runtime.mconsole.commands import REQUESTS, CommandSession, Quit

NAME_SHOWN: Final = 11
"""How much of a machine's name the prompt has."""


def interact(session: CommandSession, complain: Callable[[Exception], object]) -> None:
    """Do command after command, until `quit` or the end of input. What fails is told to `complain`.

    On a terminal lines can be edited, called back and completed. Elsewhere they are shown after the prompt, as in
    the historical program, so that a transcript is complete. Blocks.
    """
    ask = _terminal_line if sys.stdin.isatty() else _other_line
    while True:
        try:
            session.run(ask(f"({session.name[:NAME_SHOWN]}) "))
        except (Quit, EOFError):
            return
        except KeyboardInterrupt:
            print(file=sys.stderr)
        except Exception as error:
            complain(error)


def _terminal_line(prompt: str) -> str:
    import readline

    readline.set_completer_delims("")
    readline.set_completer(completion(REQUESTS))
    readline.parse_and_bind("tab: complete")
    try:
        return input(prompt)
    except EOFError:
        print()
        raise


def _other_line(prompt: str) -> str:
    line = sys.stdin.readline()
    print(prompt + line.rstrip("\n"), flush=True)
    if not line:
        raise EOFError
    return line.rstrip("\n")


def completion(words: Sequence[str]) -> Callable[[str, int], str | None]:
    """What readline calls to complete a line by one of `words`."""

    def complete(text: str, index: int) -> str | None:
        found = [word for word in words if word.startswith(text)]
        return found[index] if index < len(found) else None

    return complete
