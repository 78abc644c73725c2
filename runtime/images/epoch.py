"""SOURCE_DATE_EPOCH: the time that reproducible images carry instead of the clock's.

Defined in https://reproducible-builds.org/specs/source-date-epoch/.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from umlfs.errors import UsageError

NAME: Final = "SOURCE_DATE_EPOCH"


def source_date_epoch(environment: Mapping[str, str]) -> int | None:
    """The seconds that the variable holds, None if it is not set. UsageError for anything but a number."""
    text = environment.get(NAME)
    if not text:
        return None
    if not (text.isascii() and text.isdecimal()) or int(text) >= 1 << 33:
        raise UsageError(f"{NAME}={text} is no time", "it is seconds since 1970")
    return int(text)
