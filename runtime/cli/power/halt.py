"""`uml halt`."""

from __future__ import annotations

from runtime.cli.power import in_order

command = in_order(
    "halt",
    """Have the guest of the machine UMID shut down, and return when the machine is gone.

    \b
    Example:
      uml halt web
    """,
)
