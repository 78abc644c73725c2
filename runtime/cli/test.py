"""`uml test`: the whole test suite of a checkout."""

from __future__ import annotations

import os

import click


@click.command("test", context_settings={"ignore_unknown_options": True})
@click.option("--kernel", metavar="FILE|NAME", help="The kernel that guests are booted from.  [the distribution's own]")
@click.argument("pytest_args", nargs=-1, type=click.UNPROCESSED, metavar="[PYTEST ARGS]...")
def command(kernel: str | None, pytest_args: tuple[str, ...]) -> None:
    """Run the whole test suite: ruff, mypy, then pytest.

    Works in a checkout. Arguments go to pytest; --long runs the long form of the tests too. With --kernel it is
    pytest alone.

    \b
    Example:
      ./uml test
      ./uml test --long tests/cli -k doctor
      ./uml test --kernel 7.2 -m guest
    """
    if kernel is not None:
        from runtime.kernels.kernel import find_kernel

        os.environ["UML_KERNEL"] = str(find_kernel(kernel).path)
    from runtime.host.suite import run

    run(pytest_args, style=kernel is None)
