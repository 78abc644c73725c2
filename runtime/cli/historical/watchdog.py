"""uml_watchdog: ends or reports a kernel whose guest does not feed its /dev/watchdog."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import click

from runtime.cli.historical.frame import WrongUsage, complain, parse, why
from runtime.cli.path import PATH
from runtime.mconsole import watchdog

HUNG = 1


@click.command("uml_watchdog", add_help_option=False)
@click.option("-pid", type=click.IntRange(min=1))
@click.option("-mconsole", type=PATH)
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), default=watchdog.TIMEOUT_SECONDS)
@click.argument("rest", nargs=-1)
def _command(pid: int | None, mconsole: Path | None, timeout: float, rest: tuple[str, ...]) -> None:
    pass


def run(arguments: Sequence[str]) -> int:
    """Do what the arguments say; gives the exit status. Wrong ones are not worth a word, as ever."""
    try:
        given = parse(_command, arguments)
        if (given["pid"] is None) == (given["mconsole"] is None):
            raise WrongUsage
        if given["pid"] is not None:
            return _end(given["pid"], given["timeout"])
        return _report(given["mconsole"], given["timeout"])
    except (WrongUsage, ProcessLookupError):
        return 1


def _end(pid: int, timeout: float) -> int:
    victim = watchdog.Victim(pid)
    try:
        return HUNG if watchdog.guard(victim.end, timeout) else 0
    finally:
        victim.close()


def _report(path: Path, timeout: float) -> int:
    try:
        return HUNG if watchdog.guard(lambda: watchdog.report_hang(path), timeout) else 0
    except OSError as error:
        return complain(f"sendto: {why(error)}")


def main() -> NoReturn:
    """The entry point of the program."""
    sys.exit(run(sys.argv[1:]))
