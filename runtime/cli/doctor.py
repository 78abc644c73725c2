"""`uml doctor`: what this host lacks, and the command that mends it."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from runtime.cli.printing import printable

if TYPE_CHECKING:
    from runtime.doctor.check import Check


@click.command("doctor")
@click.option("--kernel", metavar="FILE|NAME", help="The UML kernel to look at, instead of the installed one.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object: ok, and the list of checks.")
@click.option("--fix", is_flag=True, help="Run what mends, each after asking.")
def command(kernel: str | None, as_json: bool, fix: bool) -> int:
    """Say what this host lacks, and what mends it.

    One line for each thing that guests need. The exit status is 0 if `uml run` can work here, else 1: what only
    other commands need may be missing then.

    \b
    Example:
      uml doctor
      uml doctor --fix
      uml doctor --json | jq '.checks[] | select(.ok | not)'
    """
    from runtime.doctor.checks import can_run, diagnose

    checks = diagnose(kernel)
    if fix and _mend(checks):
        checks = diagnose(kernel)
    if as_json:
        click.echo(json.dumps({"ok": can_run(checks), "checks": [asdict(check) for check in checks]}, indent=2))
    else:
        for check in checks:
            _show(check)
    return 0 if can_run(checks) else 1


def _mend(checks: list[Check]) -> bool:
    """Run the commands that mend what is missing, each once and after asking. Whether any was run. UsageError where
    nobody can be asked."""
    import subprocess
    import sys

    from umlfs.errors import UsageError

    commands = list(dict.fromkeys(check.mend for check in checks if not check.ok and check.mend))
    if commands and not sys.stdin.isatty():
        raise UsageError("--fix asks before each command, and nobody is at a terminal", "run what 'uml doctor' names")
    chosen = [each for each in commands if click.confirm(f"run: {printable(each)}", default=False, err=True)]
    for each in chosen:
        # In our own group: sudo and apt ask on this terminal.
        subprocess.run(["/bin/sh", "-c", each], check=False, process_group=None)
    return bool(chosen)


def _show(check: Check) -> None:
    word = (
        click.style("ok     ", fg="green")
        if check.ok
        else click.style("missing", fg="red" if check.required else "yellow")
    )
    mend = f"; mend: {check.mend}" if check.mend else ""
    click.echo(f"{word}  {check.name:<16}  {printable(f'{check.found}; for {check.purpose}{mend}')}")
