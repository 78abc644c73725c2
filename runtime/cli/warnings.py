"""What the packages log as a warning, told as this command tells everything: a line that drives no terminal."""

from __future__ import annotations

import logging

from runtime.cli.printing import printable


class _Line(logging.Formatter):
    """No traceback: `--debug` shows those."""

    def format(self, record: logging.LogRecord) -> str:
        return f"uml: {printable(record.getMessage())}"


def show() -> None:
    """Say warnings on standard error, unless logging is set up otherwise."""
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_Line())
