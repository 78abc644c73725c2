"""What a command in a guest gets of the one who asks for it: environment, terminal, signals."""

from __future__ import annotations

import os
import signal
from typing import Final

DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PASSED_ON: Final = {signal.SIGINT: "INT", signal.SIGTERM: "TERM", signal.SIGQUIT: "QUIT", signal.SIGHUP: "HUP"}
"""Signals for the command: the first of a kind is passed on, the second ends the guest."""
INHERITED: Final = ("LANG", "LANGUAGE", "LC_ALL", "LC_CTYPE", "LC_MESSAGES", "TZ", "NO_COLOR")
"""Variables of the caller that a command gets: they say how to speak to the person."""


def wants_terminal() -> bool:
    """Whether the caller sits at a terminal, so that the command should."""
    return os.isatty(0) and os.isatty(1)


def environment(root: str, user: str | None, on_terminal: bool) -> dict[str, str]:
    """What a command gets of the caller's environment. PATH only where the root is the caller's own; HOME too, unless
    the command runs as somebody else: to an ordinary user root's home is closed, in the guest as outside."""
    result = {name: os.environ[name] for name in INHERITED if name in os.environ}
    result["PATH"] = DEFAULT_PATH
    if root in ("/", "hostfs:/"):
        names = ("PATH", "HOME") if user is None else ("PATH",)
        result.update({name: os.environ[name] for name in names if os.environ.get(name)})
    if on_terminal:
        result["TERM"] = os.environ.get("TERM", "linux")
    return result
