"""`uml stop`."""

from __future__ import annotations

from runtime.cli.power import by_console

command = by_console(
    "stop",
    """Pause each machine UMID: its guest does nothing until `uml go`.

    \b
    Example:
      uml stop web
    """,
)
