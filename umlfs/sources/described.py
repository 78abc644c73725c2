"""What a person is told of a kind of source."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from umlfs.errors import UsageError
from umlfs.sources.plugins import entry_points
from umlfs.sources.source import GROUP, kind_at, schemes


@dataclass(frozen=True, slots=True)
class Description:
    """A kind of source, in words."""

    scheme: str
    summary: str
    example: str
    options: Mapping[str, str]
    """Its options, and what each is for."""

    @property
    def more(self) -> list[str]:
        """All but the summary, in lines."""
        width = max(map(len, self.options), default=0)
        lines = [f"{name:{width}}  {text}".rstrip() for name, text in self.options.items()]
        return [*lines, *([f"for example: {self.example}"] if self.example else [])]

    def fields(self) -> dict[str, object]:
        """For a program to read."""
        return asdict(self)


def described(scheme: str) -> Description:
    """What the kind says of itself, or else the first sentence of its documentation. UsageError if there is none."""
    target = entry_points(GROUP).get(scheme)
    if target is None:
        raise UsageError(f"{scheme}: unknown kind of source", f"known are {', '.join(schemes())}")
    kind = kind_at(target)
    words = (inspect.getdoc(type(kind)) or "").replace("\n", " ").partition(". ")[0].rstrip(".")
    options = kind.options if isinstance(kind.options, Mapping) else dict.fromkeys(kind.options, "")
    return Description(scheme, getattr(kind, "summary", words), getattr(kind, "example", ""), dict(options))
