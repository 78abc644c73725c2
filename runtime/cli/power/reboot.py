"""`uml reboot`."""

from __future__ import annotations

from runtime.cli.power import in_order

command = in_order(
    "reboot",
    """Have the guest of the machine UMID restart, and return when its kernel has ended.

    \b
    Example:
      uml reboot web
    """,
)
