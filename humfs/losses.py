"""What a target cannot carry: counted by kind, and told in one line for each."""

from __future__ import annotations

from dataclasses import dataclass, field

_SHOWN = 3
"""Paths that a line names."""


@dataclass
class Losses:
    """Gathers what is lost while something is converted."""

    _found: dict[str, tuple[int, list[str]]] = field(default_factory=dict)

    def add(self, kind: str, path: str, count: int = 1) -> None:
        """`kind` says in a plural what is lost and why, `path` where."""
        before, paths = self._found.get(kind, (0, []))
        if path and len(paths) < _SHOWN and path not in paths:
            paths.append(path)
        self._found[kind] = before + count, paths

    def __bool__(self) -> bool:
        return bool(self._found)

    def lines(self) -> list[str]:
        """One line for each kind, in the order in which they were found."""
        return [_line(kind, count, paths) for kind, (count, paths) in self._found.items()]


def _line(kind: str, count: int, paths: list[str]) -> str:
    if not paths:
        return kind
    more = f" and {count - len(paths)} more" if count > len(paths) else ""
    return f"{kind}: {', '.join(paths)}{more}"
