"""What a command in a guest gets of the one who asks for it: environment, terminal, signals."""

from __future__ import annotations

import os
import signal
from typing import Final

DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SYSTEM_PROGRAMS: Final = ("/usr/sbin", "/sbin")
"""Where root's programs are, such as mkfs and modprobe: an ordinary user's PATH on Debian lacks them."""
PASSED_ON: Final = {signal.SIGINT: "INT", signal.SIGTERM: "TERM", signal.SIGQUIT: "QUIT", signal.SIGHUP: "HUP"}
"""Signals for the command: the first of a kind is passed on, the second ends the guest."""
ENDING: Final = frozenset({signal.SIGTERM, signal.SIGHUP})
"""Those of them that ask for an end: a command that does not come to it within `END_SECONDS` is left, or its guest is
ended."""
END_SECONDS: Final = 5.0
INHERITED: Final = ("LANG", "LANGUAGE", "LC_ALL", "LC_CTYPE", "LC_MESSAGES", "TZ", "NO_COLOR")
"""Variables of the caller that a command gets: they say how to speak to the person."""


def wants_terminal() -> bool:
    """Whether the caller sits at a terminal, so that the command should: not a job in a shell's background, which is
    stopped if it asks anything of the terminal."""
    return os.isatty(0) and os.isatty(1) and not in_background(0)


def in_background(fd: int) -> bool:
    """Whether `fd` is this process's terminal, and somebody else's turn at it."""
    try:
        return os.tcgetpgrp(fd) != os.getpgrp()
    except OSError:  # no terminal, or not ours
        return False


def with_system_programs(path: str) -> str:
    """PATH as root has it: the command is root in the guest, whatever its caller is outside."""
    lacking = [each for each in SYSTEM_PROGRAMS if each not in path.split(":")]
    return ":".join([path, *lacking])


def environment(root: str, user: str | None, on_terminal: bool) -> dict[str, str]:
    """What a command gets of the caller's environment. PATH only where the root is the caller's own; HOME too, unless
    the command runs as somebody else: to an ordinary user root's home is closed, in the guest as outside."""
    result = {name: os.environ[name] for name in INHERITED if name in os.environ}
    result["PATH"] = DEFAULT_PATH
    if root in ("/", "hostfs:/"):
        names = ("PATH", "HOME") if user is None else ("PATH",)
        result.update({name: os.environ[name] for name in names if os.environ.get(name)})
        if user is None:
            result["PATH"] = with_system_programs(result["PATH"])
    if on_terminal:
        result["TERM"] = os.environ.get("TERM", "linux")
    return result
