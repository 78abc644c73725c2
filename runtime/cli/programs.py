"""Compiles the C programs of ours beside the Python packages, when `./uml` installs: `python -m runtime.cli.programs`.

No compiler is needed later then, and a first run need not wait for one.
"""

from __future__ import annotations

import sys

from runtime.appliance.program import install_program
from runtime.captive.processes import install_stand_in
from runtime.guest import announcer, network
from runtime.jail.launch import install_launcher
from runtime.sites.spawner import install_spawner
from umlfs.errors import UmlError, described


def main() -> int:
    """Exit status 0 if all are there."""
    try:
        install_launcher()
        install_program()
        install_stand_in()
        install_spawner()
        announcer.install_program()
        network.install_program()
    except UmlError as error:
        print(error.details, error, sep="\n", file=sys.stderr)
        return 1
    except OSError as error:
        print(described(error), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
