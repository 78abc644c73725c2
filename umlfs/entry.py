"""Where the programs begin: `uml` and the historical ones, in a checkout and installed.

Installed, the packages hostfs, humfs and runtime lie within this one, in `_packages`: another distribution may have one
of these names. For the programs ours are found first. `python -m umlfs.entry MODULE` runs a module of ours.
"""

from __future__ import annotations

import _thread
import os
import sys

TYPE_CHECKING = False  # as in typing, which takes long to import
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable
else:
    import _signal as signal  # without the enums, which take long

_HERE = os.path.dirname(os.path.abspath(__file__))
CHECKOUT = os.path.dirname(_HERE)
PACKAGES = os.path.join(_HERE, "_packages")
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


def end_by_interrupts() -> None:
    """Until there is somebody to say what it means, Ctrl-C ends this process at once and without a word.

    SIGINT is unblocked: who starts Python with it blocked has no traceback of a Ctrl-C while Python itself starts.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])


def raise_interrupts() -> None:
    """From now on Ctrl-C raises KeyboardInterrupt, as Python has it, unless the caller had it ignored."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.unraisablehook = _raise_again


def _raise_again(unraisable: sys.UnraisableHookArgs) -> None:
    """An interrupt that came while Python cleaned up (a weak reference, a `__del__`) would be shown, and lost:
    it comes once more, by another thread, since here it would be lost again."""
    if unraisable.exc_type is KeyboardInterrupt:
        _thread.start_new_thread(signal.pthread_kill, (_thread.get_ident(), signal.SIGINT))
    else:
        sys.__unraisablehook__(unraisable)


def complete() -> None:
    """Have installed packages found by a Python that was started without them (-S), which takes half the time."""
    if sys.flags.no_site:
        import site

        sys.path[:] = [each for each in sys.path if each != CHECKOUT]  # it comes last, as the .pth file has it
        site.main()


def __getattr__(name: str) -> Callable[[], object]:
    """The program of that name."""
    if name not in PROGRAMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def program() -> object:
        end_by_interrupts()
        ours_first()
        __import__(PROGRAMS[name])
        main: Callable[[], object] = sys.modules[PROGRAMS[name]].main
        if name != "uml":  # which has more to load
            raise_interrupts()
        return main()

    return program


if __name__ == "__main__":
    import runpy

    ours_first()
    module = sys.argv.pop(1)
    runpy.run_module(module, run_name="__main__", alter_sys=True)
