"""`uml halt`."""

from __future__ import annotations

from runtime.cli.power import in_order

command = in_order(
    "halt",
    """Have the guests of the machines UMID shut down, and return when the machines are gone.

    \b
    Example:
      uml halt web
      uml halt one two
    """,
)
