"""`uml explain`: more about an error."""

from __future__ import annotations

import click


@click.command("explain")
@click.argument("code", required=False)
def command(code: str | None) -> None:
    """Tell more about the error called CODE, which may be the error's whole line. Without one, list the codes.

    \b
    Example:
      uml explain
      uml explain in-use
      uml explain 'disk.img: in use by another process'
    """
    from difflib import get_close_matches

    from runtime.cli.explanations import explanation_of, explanations
    from umlfs.errors import UsageError

    known = {each.code: each for each in explanations()}
    if code is None:
        click.echo("\n".join(known))
        return
    found = known.get(code) or explanation_of(code)
    if found is None:
        near = get_close_matches(code, known, n=1)
        raise UsageError(f"{code}: no such error", f"did you mean '{near[0]}'?" if near else "'uml explain' lists them")
    click.echo(f"{found.code}\n\n{found.text}")
