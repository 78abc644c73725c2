"""`uml sources`: what a source may be."""

from __future__ import annotations

import click

from runtime.cli.trees import as_json, show, show_json


@click.command("sources")
@click.argument("scheme", required=False)
@as_json
def command(scheme: str | None, as_json: bool) -> None:
    """List the kinds of sources, or tell the options of one.

    \b
    Example:
      uml sources
      uml sources sql
    """
    from umlfs import sources
    from umlfs.sources.described import described

    kinds = [described(name) for name in sources.schemes()] if scheme is None else [described(scheme)]
    if as_json:
        show_json([kind.fields() for kind in kinds])
        return
    width = max(len(kind.scheme) for kind in kinds) + 1
    for kind in kinds:
        show(f"{kind.scheme + ':':{width}}  {kind.summary}")
        for line in kind.more if scheme is not None else ():
            show(f"  {line}")
