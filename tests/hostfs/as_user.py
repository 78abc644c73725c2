"""Run the contract as an ordinary user: `python -m tests.hostfs.as_user DIRECTORY`, by root or by anyone.

Prints JSON: the name of each check with its traceback, or null if it passed. All modules are imported before the
privileges are dropped, so that they may lie where only root can read.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path

import trio

from hostfs import HostFilesystem
from tests.contract.filesystem import CHECKS, Check, name_of, run
from tests.hostfs.features import features_of

NOBODY = 65534


def become_nobody(directory: str) -> None:
    """Go into `directory`, made nobody's own, and never be root again. Nothing happens for an ordinary user."""
    os.chdir(directory)
    if os.geteuid() == 0:
        os.chown(".", NOBODY, NOBODY)
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)


async def outcome(check: Check, stateless: bool) -> str | None:
    """The traceback, or None."""
    place = Path(f"{name_of(check)}-{stateless}")
    os.mkdir(place)

    async def make() -> HostFilesystem:
        return HostFilesystem(place, stateless=stateless)

    try:
        await run(check, make, features_of(place))
    except Exception:
        return traceback.format_exc()
    return None


async def main() -> None:
    await trio.to_thread.run_sync(int)  # whatever is imported late
    become_nobody(sys.argv[1])
    json.dump(
        {
            f"{name_of(check)}-{'stateless' if stateless else 'handles'}": await outcome(check, stateless)
            for check in CHECKS
            for stateless in (True, False)
        },
        sys.stdout,
    )


if __name__ == "__main__":
    trio.run(main)
