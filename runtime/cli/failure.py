"""What a failed command tells the person: one line on standard error (after the details, if there are any), and an
exit status."""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Iterator

import click

from runtime.cli.printing import printable, printable_lines
from umlfs.errors import UmlError, described

USAGE = 2
"""The exit status of wrong usage."""

FAILED = 1
OURS = 125
"""What `run` and `exec`, whose exit status is that of a command in the guest, give for a failure of ours."""

INTERRUPTED = 128 + signal.SIGINT
BROKEN_PIPE = 128 + signal.SIGPIPE


def report(error: BaseException, debug: bool) -> int:
    """Say what `error` means on standard error, and give the exit status that goes with it.

    An exception group (what a trio nursery raises) counts as the gravest of its members. With `debug` the
    traceback comes first.
    """
    if debug:
        import traceback

        traceback.print_exception(error)
    cause = _cause(error)
    nobody_reads = isinstance(cause, BrokenPipeError) and _stdout_is_broken()
    _give_up_stdout()
    if nobody_reads:
        return BROKEN_PIPE
    if isinstance(cause, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(cause, click.exceptions.NoArgsIsHelpError):
        cause.show()
        return USAGE
    if isinstance(cause, UmlError) and cause.details:
        print(printable_lines(cause.details), file=sys.stderr)
    line = _line(cause, debug)
    print(f"uml: {printable(line)}{_more(line)}", file=sys.stderr)
    return _status(cause)


def _more(line: str) -> str:
    """On a terminal, the command that tells more of such an error, if there is more to tell."""
    if not sys.stderr.isatty():
        return ""
    from runtime.cli.explanations import explanation_of

    found = explanation_of(line)
    return f" (uml explain {found.code})" if found else ""


def _cause(error: BaseException) -> BaseException:
    """The member of a (nested) exception group that a person should hear of."""
    return min(_members(error), key=_gravity)


def _members(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for member in error.exceptions:
            yield from _members(member)
    else:
        yield error


def _gravity(error: BaseException) -> int:
    """0 is told first. A defect of ours hides nothing but an interrupt: it may be why the rest failed."""
    if isinstance(error, KeyboardInterrupt):
        return 0
    if isinstance(error, UmlError | click.ClickException):
        return 2
    return 3 if isinstance(error, OSError) else 1


def _line(error: BaseException, debug: bool) -> str:
    if isinstance(error, UmlError):
        return str(error)
    if isinstance(error, click.ClickException):
        return _click_line(error)
    if isinstance(error, click.Abort):
        return "aborted"
    if isinstance(error, OSError):
        return described(error)
    if isinstance(error, ModuleNotFoundError):
        return f"{error}; the installation is incomplete, 'uml doctor' says what is missing"
    way_out = "" if debug else "; 'uml --debug …' shows where, please report it"
    return f"internal error: {type(error).__name__}: {error}{way_out}"


def _click_line(error: click.ClickException) -> str:
    message = " ".join(error.format_message().split()).rstrip(".").replace(". Did you", "; did you")
    message = message[:1].lower() + message[1:]
    ctx = error.ctx if isinstance(error, click.UsageError) else None
    return message if ctx is None or message.endswith("?") else f"{message}; try '{ctx.command_path} --help'"


def _status(error: BaseException) -> int:
    if isinstance(error, UmlError):
        return error.status
    return error.exit_code if isinstance(error, click.ClickException) else 1


def _stdout_is_broken() -> bool:
    """Whether the reader of our standard output has gone, as `head` does."""
    poll = select.poll()
    poll.register(1, 0)
    return any(events & select.POLLERR for _, events in poll.poll(0))


def _give_up_stdout() -> None:
    """Write out what standard output still holds; where that fails, drop it, or Python would complain at exit."""
    try:
        if sys.stdout:
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
