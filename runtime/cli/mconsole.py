"""`uml mconsole`: requests to a machine's management console."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from runtime.cli import answers
from runtime.cli.failure import report
from runtime.cli.printing import printable_lines

if TYPE_CHECKING:
    from runtime.mconsole.wire import Reply


class _Shown:
    """Answers as they are; errors on standard error."""

    def reply(self, reply: Reply) -> None:
        text = reply.text.rstrip("\n")
        if reply.err:
            print(f"uml: {printable_lines(text) or f'error {reply.err}'}", file=sys.stderr)
        elif text:
            answers.write(f"{text}\n")

    def say(self, text: str) -> None:
        print(text, flush=True)


def _complain(error: Exception) -> None:
    report(error, debug=False)


@click.command("mconsole", context_settings={"allow_interspersed_args": False})
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=10.0,
    metavar="S",
    help="Give up when the machine says nothing for S seconds.  [10]",
)
@click.argument("machine", metavar="UMID|SOCKET")
@click.argument("request", nargs=-1, type=click.UNPROCESSED, metavar="[REQUEST]...")
def command(timeout: float, machine: str, request: tuple[str, ...]) -> int:
    """Send a request to a machine's management console; without one, a prompt.

    The exit status is 1 if the machine refuses the request or does not answer. `help` lists what there is.

    \b
    Example:
      uml mconsole debian version
      uml mconsole debian config ubd3=root.cow,root.img
      uml mconsole ~/.uml/debian/mconsole sysrq t
    """
    from runtime.mconsole.commands import CommandSession, Quit
    from runtime.mconsole.interactive import interact

    answers.take_any_bytes()
    session = CommandSession(machine, _Shown(), timeout=timeout)
    session.find()
    if not request:
        interact(session, _complain)
        return 0
    try:
        return 1 if session.run(" ".join(request)) else 0
    except Quit:
        return 0
