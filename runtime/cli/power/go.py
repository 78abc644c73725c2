"""`uml go`."""

from __future__ import annotations

from runtime.cli.power import by_console

command = by_console(
    "go",
    """Have each machine UMID go on after `uml stop`.

    \b
    Example:
      uml go web
    """,
)
