"""What the commands that look into sources share."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import click

from runtime.cli.keys import key_options
from runtime.cli.printing import printable
from umlfs.errors import UsageError

if TYPE_CHECKING:
    from runtime.standby.worker import Commands

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., object])

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for a program to read.")


class Troubles:
    """What could not be read, told as it comes up; the rest goes on."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, error: OSError) -> None:
        self.count += 1
        name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else "?"
        print(f"uml: {printable(name)}: {error.strerror}", file=sys.stderr)

    @property
    def status(self) -> int:
        """The exit status of the command."""
        return 1 if self.count else 0


_keep = click.option(
    "--keep", type=click.IntRange(min=1), metavar="SECONDS", help="Keep the appliance so long, for the next command."
)


def keep(command: F) -> F:
    """Give a command that looks into images `--keep`, and the options for the keys of encrypted ones."""
    return _keep(key_options(command))


def run(work: Callable[[], Awaitable[T]], keep: int | None = None, words: Sequence[str] = ()) -> T:
    """Do `work` in an event loop; processes that an appliance leaves behind are seen to. With `keep`, the appliances
    for the images in `words` outlive it by so many seconds."""
    import trio

    from runtime.process import processes
    from runtime.tty.interrupts import until_interrupted

    if keep is not None:
        from runtime.appliance.client import keep as keep_appliance
        from runtime.inspect import location
        from runtime.volumes import keys

        if keys.known():
            raise UsageError("--keep: not with the key of an encrypted disk", "leave one of them out")
        for word in words:
            keep_appliance(location.parse(word).source, keep, _standby_commands())
    with processes.for_machines():
        return trio.run(until_interrupted, work)


def _standby_commands() -> Commands:
    """What the standby of a kept appliance does, with all that it takes imported."""
    from runtime.cli import COMMANDS, invoke
    from runtime.inspect.kept import needs_only_kept
    from runtime.standby import finding
    from runtime.standby.worker import Commands

    return Commands(needs_only_kept, invoke, (*(COMMANDS[name] for name in sorted(finding.COMMANDS)), *_USED))


_USED = (
    "hostfs.source",
    "runtime.cli.warnings",
    "runtime.inspect.comparing",
    "runtime.inspect.copying",
    "runtime.inspect.listing",
    "runtime.inspect.output",
    "runtime.inspect.tree",
    "runtime.tty.interrupts",
    "runtime.process.processes",
)
"""What the commands that a standby does import when they run."""


def show(line: str) -> None:
    """Print a line, with whatever could drive a terminal escaped."""
    click.echo(printable(line))


def show_json(value: object) -> None:
    """Print a value for a program."""
    click.echo(json.dumps(value, indent=2))
