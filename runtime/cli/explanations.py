"""What the page `errors` of the documentation says of an error: a section for each kind, called by a code."""

from __future__ import annotations

import re
from dataclasses import dataclass

from runtime.cli.pages import topics

PAGE = "errors"


@dataclass(frozen=True, slots=True)
class Explanation:
    """A kind of error."""

    code: str
    says: tuple[str, ...]
    """What its lines contain, one of these."""
    text: str


def explanations() -> list[Explanation]:
    """All of them, in the order of the page. None in an installation without documentation."""
    page = topics().get(PAGE)
    if page is None:
        return []
    sections = re.split(r"^## ", page.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    return [_parsed(section) for section in sections]


def explanation_of(line: str) -> Explanation | None:
    """That of the error which says `line`: the first that fits."""
    lowered = line.lower()
    return next((each for each in explanations() if any(said.lower() in lowered for said in each.says)), None)


def _parsed(section: str) -> Explanation:
    code, said, text = section.split("\n\n", 2)
    return Explanation(code, tuple(re.findall(r"`([^`]+)`", said)), text.strip())
