"""The `uml` command itself: finds the command that is asked for, and tells what failed."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

import click

from runtime.cli import COMMANDS
from runtime.cli.failure import FAILED, OURS, report
from umlfs.errors import UmlError, UsageError

OF_THE_COMMAND = frozenset({"run", "exec"})
"""Commands whose exit status is that of a command in the guest."""

UNCONFIGURED = frozenset({"config", "help", "explain", "completion", "doctor", "bug-report", "test"})
"""Commands that must work whatever configuration files say."""

WITHOUT_PROC = frozenset({"help", "completion", "config", "doctor"})
"""Commands that do without /proc."""
PROC = "/proc/self/fd"

COMPLETING = "_UML_COMPLETE"
"""The environment variable by which a shell asks what a word may become."""


class LazyGroup(click.Group):
    """A group whose commands are imported one at a time, when they are invoked."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands, in the order of the help page."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, imported now; None for an unknown one."""
        module = COMMANDS.get(cmd_name)
        if module is None:
            return None
        command: click.Command = importlib.import_module(module).command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that `args` begins with. UsageError naming the nearest for an unknown one."""
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            raise _unknown(args[0])
        if args[0] not in WITHOUT_PROC and not os.path.isdir(PROC):
            raise _no_proc(OURS if args[0] in OF_THE_COMMAND else FAILED)
        if args[0] not in UNCONFIGURED and not ctx.resilient_parsing and _is_configured():
            args = self._configure(ctx, args)
        return super().resolve_command(ctx, args)

    def _configure(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Have configuration files give the command's options their defaults. Its words, named ones spelled out."""
        from runtime.cli.defaults import defaults_of, named_words
        from runtime.host.configuration import expanded, settings

        found = settings()
        name, command = args[0], self.get_command(ctx, args[0])
        if command is not None:
            ctx.default_map = {name: defaults_of(name, command, found)}
            found = named_words(name, command, found)
        return [name, *expanded(name, list(args[1:]), found)]


def _no_proc(status: int) -> UmlError:
    way_out = "mount it: mount -t proc proc /proc"
    return UmlError("no /proc is mounted here, by which uml finds its own files and processes", way_out, status=status)


def _is_configured() -> bool:
    """Whether there may be a configuration file: asked at each start, so by the cheapest means."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    if os.path.exists(f"{base if base.startswith('/') else os.path.expanduser('~/.config')}/umlfs/config.toml"):
        return True
    try:
        here = os.getcwd()
    except OSError:
        return False
    while here != "/":
        if os.path.exists(f"{here}/.umlfs.toml"):
            return True
        here = os.path.dirname(here)
    return os.path.exists("/.umlfs.toml")


def _unknown(name: str) -> UsageError:
    from difflib import get_close_matches

    near = get_close_matches(name, COMMANDS, n=1)
    way_out = f"did you mean '{near[0]}'?" if near else "'uml --help' lists all of them"
    return UsageError(f"{name}: no such command", way_out)


def _print_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    from importlib.metadata import version

    click.echo(f"uml {version('umlfs')}")
    ctx.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--debug", is_flag=True, envvar="UML_DEBUG", help="Show tracebacks and the debug log.  [env: UML_DEBUG=1]"
)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Say which.")
def uml(debug: bool) -> None:
    """User-mode Linux guests, their disks and their filesystems.

    \b
    uml run -- uname -a      a command in a throwaway guest
    uml doctor               what this machine lacks for it
    """
    if debug:
        import logging

        logging.basicConfig(level=logging.DEBUG, format="%(relativeCreated)d %(name)s %(levelname)s %(message)s")
    else:
        from runtime.cli import warnings

        warnings.show()


def run(args: Sequence[str]) -> int:
    """See `runtime.cli.invoke`."""
    if COMPLETING in os.environ:
        from runtime.cli.completing import complete

        return complete(uml, os.environ.pop(COMPLETING))
    debug = bool(os.environ.get("UML_DEBUG"))
    ctx: click.Context | None = None
    try:
        with uml.make_context("uml", list(args)) as ctx:
            debug = ctx.params["debug"]
            status = uml.invoke(ctx)
        if sys.stdout:
            sys.stdout.flush()
    except click.exceptions.Exit as exit_:
        status = exit_.exit_code
    except (Exception, KeyboardInterrupt, BaseExceptionGroup) as error:
        status = report(error, debug)
        name = None if ctx is None else ctx.invoked_subcommand
        return OURS if status == FAILED and name in OF_THE_COMMAND else status
    return status if isinstance(status, int) else 0
