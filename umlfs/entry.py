"""Where the programs begin: `uml` and the historical ones, in a checkout and installed.

Installed, the packages hostfs, humfs and runtime lie within this one, in `_packages`: another distribution may have one
of these names. For the programs ours are found first. `python -m umlfs.entry MODULE` runs a module of ours.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable

PACKAGES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "_packages")
"""Where the other packages are once installed."""
PROGRAMS = {
    "uml": "runtime.cli",
    "uml_mconsole": "runtime.cli.historical.mconsole",
    "uml_mkcow": "runtime.cli.historical.mkcow",
    "uml_moo": "runtime.cli.historical.moo",
    "uml_switch": "runtime.cli.historical.switch",
    "uml_net": "runtime.cli.historical.uml_net",
    "tunctl": "runtime.cli.historical.tunctl",
    "uml_watchdog": "runtime.cli.historical.watchdog",
    "humfsify": "runtime.cli.historical.humfsify",
    "mount_helper": "runtime.cli.mount_helper",
}
"""The modules whose `main` each program is."""


def ours_first() -> None:
    """Have our own packages found before others of the same names."""
    if os.path.isdir(PACKAGES):
        sys.path[:] = [PACKAGES, *(each for each in sys.path if each != PACKAGES)]


def __getattr__(name: str) -> Callable[[], object]:
    """The program of that name."""
    if name not in PROGRAMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def program() -> object:
        ours_first()
        main: Callable[[], object] = importlib.import_module(PROGRAMS[name]).main
        return main()

    return program


if __name__ == "__main__":
    import runpy

    ours_first()
    module = sys.argv.pop(1)
    runpy.run_module(module, run_name="__main__", alter_sys=True)
