"""Machines: a genuine UML kernel wired to our devices, as tasks of one trio nursery.

    import trio
    from runtime import run

    done = trio.run(run, ["uname", "-a"])
    print(done.returncode, done.stdout)

Names are imported when they are first used: the command line has its start to think of.
"""

TYPE_CHECKING = False  # as in typing, which takes long to import
if TYPE_CHECKING:
    from runtime.command.throwaway import TimeLimitError, run
    from runtime.machine.equipment import HostMount
    from runtime.machine.machine import Machine, Options

__all__ = ["HostMount", "Machine", "Options", "TimeLimitError", "run"]

_MACHINE = "runtime.machine.machine"
_HOMES = {
    "HostMount": "runtime.machine.equipment",
    "Machine": _MACHINE,
    "Options": _MACHINE,
    "TimeLimitError": "runtime.command.throwaway",
    "run": "runtime.command.throwaway",
}


def __getattr__(name: str) -> object:
    """Import what is asked for, when it is: most commands need no machine, and it takes longer to import than they
    take to run."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
