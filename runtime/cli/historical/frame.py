"""What the historical programs share."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from runtime.cli.printing import printable_lines
from umlfs.errors import UmlError

if TYPE_CHECKING:
    import click


class WrongUsage(Exception):
    """The arguments make no sense: the usage text is due."""


def parse(command: click.Command, arguments: Sequence[str]) -> dict[str, Any]:
    """The parameters that `arguments` give. WrongUsage."""
    import click  # programs without options do without it

    try:
        with command.make_context(command.name, list(arguments)) as context:
            return dict(context.params)
    except click.ClickException:
        raise WrongUsage from None


def complain(text: str) -> int:
    """Say what failed on standard error; gives the exit status."""
    print(printable_lines(text), file=sys.stderr)
    return 1


def why(error: OSError | UmlError) -> str:
    """The reason alone, as perror(3) gives it."""
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
