"""How many files may be open at once: what serves raises that for itself, not for the commands that it starts.

Logins usually allow 1,024, since select(2) knows no higher numbers; each file that is open through a mount or by a
guest may take one here.
"""

from __future__ import annotations

import resource
from typing import Final

OPEN_FILES_MAX: Final = 65536
"""More than that is never asked for: limits of the providers are fractions of it."""

_callers: int | None = None
"""The soft limit that this process was started with, once it was raised."""


def raise_limit() -> None:
    """Allow this process as many open files as it may have, up to `OPEN_FILES_MAX`. Never lowers the limit."""
    global _callers
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES_MAX)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        if _callers is None:
            _callers = soft


def callers_limit() -> str:
    """The soft limit that commands are to get, as `ulimit -Sn` of a shell takes it."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0] if _callers is None else _callers
    return "unlimited" if soft == resource.RLIM_INFINITY else str(soft)
