"""The options of `hostfs:` that show a directory otherwise than it is."""

from __future__ import annotations

from collections.abc import Mapping as Words
from typing import TYPE_CHECKING, Final, NamedTuple

from umlfs.errors import UsageError
from umlfs.filesystem import Filesystem

if TYPE_CHECKING:  # most directories are shown as they are
    from umlfs.views.identity import Mapping, Range

KNOWN: Final = ("append", "cache", "gid", "hide", "map", "notify", "squash", "uid")


class ViewOptions(NamedTuple):
    """How a filesystem is to be shown."""

    mapping: Mapping | None = None
    append: bool = False
    hide: tuple[str, ...] = ()
    notify: bool = False
    """What others change is told to the consumer's programs."""

    @staticmethod
    def parsed(given: Words[str, str]) -> ViewOptions:
        """What `OpenOptions.extra` asks for. UsageError for an unknown option, or one that means nothing."""
        unknown = sorted(set(given) - set(KNOWN))
        if unknown:
            raise UsageError(f"hostfs: unknown option '{unknown[0]}'", f"known are {', '.join(KNOWN)}")
        if not given:
            return ViewOptions()
        for flag in ("append", "notify", "squash"):
            if given.get(flag):
                raise UsageError(f"hostfs: {flag}={given[flag]} means nothing", f"say {flag} alone")
        hide = tuple(given["hide"].split("\n")) if "hide" in given else ()
        return ViewOptions(_mapping(given), "append" in given, hide, "notify" in given)

    def applied(self, filesystem: Filesystem) -> Filesystem:
        """`filesystem`, shown so."""
        if self.hide:
            from umlfs.views.hidden import Hidden, patterns

            filesystem = Hidden(filesystem, patterns(self.hide))
        if self.append:
            from umlfs.views.append import AppendOnly

            filesystem = AppendOnly(filesystem)
        if self.mapping is not None:
            from umlfs.views.identity import Identity

            filesystem = Identity(filesystem, self.mapping)
        return filesystem


def _mapping(given: Words[str, str]) -> Mapping | None:
    """How owners are translated; None if they are not."""
    from umlfs.views.identity import Mapping

    mapping = Mapping(
        ranges=_ranges(given["map"].split("\n")) if "map" in given else (),
        uid=_number("uid", given["uid"]) if "uid" in given else None,
        gid=_number("gid", given["gid"]) if "gid" in given else None,
        squash="squash" in given,
    )
    return mapping if mapping != Mapping() else None


def _number(option: str, text: str) -> int:
    from umlfs.views.identity import ID_MAX

    if not text.isdecimal() or int(text) > ID_MAX:
        raise UsageError(f"hostfs: {option}={text} is no number of a user or group", f"for example {option}=1000")
    return int(text)


def _ranges(texts: list[str]) -> tuple[Range, ...]:
    from umlfs.views.identity import ID_MAX, Range

    ranges = []
    for text in texts:
        parts = text.split(":")
        if len(parts) != 3 or not all(part.isdecimal() for part in parts):
            raise UsageError(
                f"hostfs: map={text} means nothing", "write map=GUEST:HOST:COUNT, for example map=0:1000:1"
            )
        guest, host, count = map(int, parts)
        if not count or max(guest, host) + count - 1 > ID_MAX:
            raise UsageError(f"hostfs: map={text} holds no number, or too high ones", f"the highest is {ID_MAX}")
        ranges.append(Range(guest, host, count))
    _check_apart([(one.guest, one.count) for one in ranges])
    _check_apart([(one.host, one.count) for one in ranges])
    return tuple(ranges)


def _check_apart(ranges: list[tuple[int, int]]) -> None:
    end = 0
    for start, count in sorted(ranges):
        if start < end:
            raise UsageError(f"hostfs: two maps for the number {start}", "let them not overlap")
        end = start + count
