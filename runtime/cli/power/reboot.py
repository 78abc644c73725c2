"""`uml reboot`."""

from __future__ import annotations

from runtime.cli.power import in_order

command = in_order(
    "reboot",
    """Have the guests of the machines UMID restart, and return when their kernels have ended.

    \b
    Example:
      uml reboot web
    """,
)
