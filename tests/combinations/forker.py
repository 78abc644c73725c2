"""Runs `uml` with each of the argument lists on standard input (JSON), and prints what came of it: forked, as most of a
short command's time goes into imports."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import sys
import tempfile
from typing import BinaryIO

from runtime.cli import main

SECONDS = 5
"""After which a command that serves is told to end."""


def run(words: list[str], output: BinaryIO, errors: BinaryIO) -> int:
    """The exit status of `uml WORDS`; 128 + N after signal N."""
    child = os.fork()
    if not child:
        null = os.open(os.devnull, os.O_RDONLY)
        for number, fd in enumerate((null, output.fileno(), errors.fileno())):
            os.dup2(fd, number)
        sys.argv = ["uml", *words]
        status = 70
        try:
            main()
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        finally:
            with contextlib.suppress(OSError):
                sys.stdout.flush()
            os._exit(status)
    signal.signal(signal.SIGALRM, lambda *_: os.kill(child, signal.SIGTERM))
    signal.alarm(SECONDS if words[0] == "serve" else 50)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    signal.alarm(0)
    return 128 - status if status < 0 else status


def result(words: list[str]) -> tuple[int, str, str]:
    """Status, output and errors of `uml WORDS`."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        status = run(words, output, errors)
        texts = []
        for file in (output, errors):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    return status, texts[0], texts[1]


if __name__ == "__main__":
    gc.freeze()
    print(json.dumps([result(words) for words in json.load(sys.stdin)]))
