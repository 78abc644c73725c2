"""The text in which LVM2 keeps its metadata, as lvm.conf(5) describes it: values of names, and sections of them."""

from __future__ import annotations

import re
from typing import Final

Value = int | str | list[int | str]
Section = dict[str, "Value | Section"]

_TOKEN: Final = re.compile(
    r"""\s*(?:\#[^\n]*\n\s*)*(?:
        (?P<string>"(?:[^"\\]|\\.)*")
      | (?P<number>-?[0-9]+)(?![A-Za-z0-9_.+-])
      | (?P<name>[A-Za-z0-9_.+-]+)
      | (?P<mark>[{}\[\]=,])
    )""",
    re.VERBOSE | re.DOTALL,
)
_DEPTH_MAX: Final = 16


def parse(text: str) -> Section:
    """All that it says. ValueError for what is no such text."""
    tokens = _Tokens(text)
    found = _section(tokens, 0)
    if tokens.kind:
        raise ValueError(f"'{tokens.value}' where the end should be")
    return found


class _Tokens:
    """The text's words; `kind` is empty at the end."""

    def __init__(self, text: str) -> None:
        self._text = text.rstrip("\0") + "\n"
        self._at = 0
        self.kind = ""
        self.value = ""
        self.go_on()

    def go_on(self) -> None:
        """To the next word."""
        match = _TOKEN.match(self._text, self._at)
        if match is None:
            rest = re.sub(r"#[^\n]*\n", "", self._text[self._at :]).strip()
            if rest:
                raise ValueError(f"'{rest[:20]}' makes no sense")
            self.kind = self.value = ""
            return
        self._at = match.end()
        self.kind, self.value = match.lastgroup or "", match[match.lastgroup or 0]

    def take(self, mark: str) -> None:
        if (self.kind, self.value) != ("mark", mark):
            raise ValueError(f"no '{mark}' before '{self.value}'")
        self.go_on()


def _section(tokens: _Tokens, depth: int) -> Section:
    if depth > _DEPTH_MAX:
        raise ValueError("sections lie too deep in each other")
    found: Section = {}
    while tokens.kind in ("name", "number"):
        name = tokens.value
        tokens.go_on()
        if name in found:
            raise ValueError(f"'{name}' is there twice")
        if tokens.value == "{" and tokens.kind == "mark":
            tokens.go_on()
            found[name] = _section(tokens, depth + 1)
            tokens.take("}")
        else:
            tokens.take("=")
            found[name] = _value(tokens)
    return found


def _value(tokens: _Tokens) -> Value:
    if (tokens.kind, tokens.value) != ("mark", "["):
        return _scalar(tokens)
    tokens.go_on()
    values: list[int | str] = []
    while (tokens.kind, tokens.value) != ("mark", "]"):
        values.append(_scalar(tokens))
        if (tokens.kind, tokens.value) == ("mark", ","):
            tokens.go_on()
    tokens.go_on()
    return values


def _scalar(tokens: _Tokens) -> int | str:
    kind, value = tokens.kind, tokens.value
    if kind == "number":
        found: int | str = int(value) if len(value) < 20 else 0
    elif kind == "string":
        found = re.sub(r"\\(.)", r"\1", value[1:-1], flags=re.DOTALL)
    else:
        raise ValueError(f"no value before '{value}'")
    tokens.go_on()
    return found
