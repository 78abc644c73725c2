"""`uml diff`: what differs between two trees."""

from __future__ import annotations

from dataclasses import asdict

import click

from runtime.cli.failure import report
from runtime.cli.trees import as_json, keep, run, show, show_json

_TROUBLE = 2
"""The exit status when there is no answer, as diff(1) has it."""


@click.command("diff")
@click.argument("one", metavar="A")
@click.argument("other", metavar="B")
@click.option("--times", is_flag=True, help="A different time of change counts, too.")
@as_json
@keep
def command(one: str, other: str, times: bool, as_json: bool, keep: int | None) -> int:
    """Compare what is inside of two images, humfs trees or directories, file by file.

    A line for each path that is only in B (+), only in A (-), or not the same in both (!). A COW file and its backing
    file: what did the guest change? Exit status 0 if nothing differs, 1 if something does, 2 if there was trouble.

    \b
    Example:
      uml diff debian.img guest.cow
      uml diff --json disk.img:2:/etc ./etc
    """
    from runtime.inspect import location
    from runtime.inspect.comparing import compare
    from runtime.inspect.diff import Difference

    records: list[dict[str, object]] = []
    count = 0

    def each(change: Difference) -> None:
        nonlocal count
        count += 1
        if as_json:
            records.append(asdict(change))
        else:
            show(change.line())

    async def work() -> None:
        await compare(location.parse(one), location.parse(other), each, times=times)

    debug = bool(click.get_current_context().find_root().params.get("debug"))
    try:
        run(work, keep, [one, other])
    except (Exception, BaseExceptionGroup) as error:
        return max(report(error, debug), _TROUBLE)
    if as_json:
        show_json(records)
    return 1 if count else 0
