"""`uml cad`."""

from __future__ import annotations

from runtime.cli.power import by_console

command = by_console(
    "cad",
    """Press Ctrl-Alt-Del in each machine UMID: its init restarts it in order, unless told otherwise.

    \b
    Example:
      uml cad web
    """,
)
