"""`uml test`: the whole test suite of a checkout."""

from __future__ import annotations

import click

from runtime.host.suite import run


@click.command("test", context_settings={"ignore_unknown_options": True})
@click.argument("pytest_args", nargs=-1, type=click.UNPROCESSED, metavar="[PYTEST ARGS]...")
def command(pytest_args: tuple[str, ...]) -> None:
    """Run the whole test suite: ruff, mypy, then pytest.

    Works in a checkout. Arguments go to pytest; --long runs the long form of the tests too.

    \b
    Example:
      ./uml test
      ./uml test --long tests/cli -k doctor
    """
    run(pytest_args)
