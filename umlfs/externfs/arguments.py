"""The argument of a source, and the options behind it: `ARGUMENT,rw,name=value`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from umlfs.errors import UsageError

WRITABLE: Final = "rw"
READ_ONLY: Final = "ro"
OF_ALL: Final = {
    READ_ONLY: "nothing can be changed; so it is without a word",
    WRITABLE: "what is written, removed or renamed has its effect",
    "timeout": "seconds until a request without an answer is EIO (timeout=30)",
}
"""Options that every plugin has."""


@dataclass(frozen=True, slots=True)
class PluginArguments:
    """An argument taken apart."""

    argument: str
    values: Mapping[str, str] = field(default_factory=dict)

    @property
    def writable(self) -> bool:
        return WRITABLE in self.values

    def number(self, scheme: str, name: str, usual: float) -> float:
        """The positive number that an option gives. UsageError."""
        text = self.values.get(name)
        if text is None:
            return usual
        try:
            number = float(text)
        except ValueError:
            number = 0.0
        if not 0 < number < 1e9:
            raise UsageError(f"{scheme}: {name}={text} is no number above 0", f"for example {name}={usual:g}")
        return number


def split(scheme: str, argument: str, extra: Mapping[str, str], options: Mapping[str, str]) -> PluginArguments:
    """`argument` without the options at its end, and all options, with those of `extra`. `options` says what each is
    for. UsageError for one in `extra` that is unknown; what is unknown in `argument` belongs to the argument."""
    known = {**OF_ALL, **options}
    unknown = sorted(set(extra) - set(known))
    if unknown:
        raise UsageError(f"{scheme}: unknown option '{unknown[0]}'", f"it has {', '.join(known)}")
    values: dict[str, str] = {}
    while "," in argument:
        rest, _, word = argument.rpartition(",")
        name, _, value = word.partition("=")
        if name not in known:
            break
        values.setdefault(name, value)
        argument = rest
    values.update(extra)
    if READ_ONLY in values:
        values.pop(WRITABLE, None)
    return PluginArguments(argument, values)
