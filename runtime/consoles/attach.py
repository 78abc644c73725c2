"""What runs in the terminal emulator of an `xterm` channel: `python -m runtime.consoles.attach SOCKET`."""

from __future__ import annotations

import sys
from pathlib import Path

import trio

from runtime.consoles.client import attach
from runtime.consoles.escape import Escape
from umlfs.errors import UmlError


def main(path: str) -> int:
    """Show the line that is shared at `path`; every key is the guest's. The exit status."""
    try:
        return trio.run(attach, Path(path), None, Escape(None))
    except UmlError as error:
        print(error, file=sys.stderr)
        return error.status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
