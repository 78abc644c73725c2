"""The `uml` program of a checkout: `python -I -S umlfs/starting.py ARGUMENTS…`, SIGINT blocked, as `./uml` has it.

Nothing but the checkout itself is on the path, until `umlfs.entry.complete`.
"""

import os
import sys


def main() -> None:
    """Become the command."""
    sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    sys.argv[0] = "uml"
    from umlfs.entry import uml

    uml()


if __name__ == "__main__":
    main()
