"""What differs between kernels, by what they say of themselves and by how guest tests end on each: the table of
docs/kernels.md. `tools/kernel-table` runs the tests and then this.

python -m tests.kernels.outcomes [NAME=REPORT.xml...]

Each report, of pytest's `--junitxml`, is kept in outcomes.json in the place of what was there of the kernel's version;
then the table is written anew.
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree

from runtime.kernels.features import abilities
from runtime.kernels.kernel import find_kernel
from runtime.kernels.store import ordered

ROOT: Final = Path(__file__).parents[2]
DATA: Final = Path(__file__).with_name("outcomes.json")
PAGE: Final = ROOT / "docs/kernels.md"
BEGIN: Final = "<!-- made by tools/kernel-table -->"
END: Final = "<!-- end of what is made -->"

Tests = dict[str, dict[str, str]]
"""`pass` or `fail` of each test, by its file and its name."""
Outcomes = dict[str, dict[str, Any]]
"""By a kernel's version: its `abilities`, and how the `tests` ended."""


def outcomes_in(report: str) -> Tests:
    """How the tests of a report (JUnit's XML) ended."""
    found: Tests = {}
    for case in ElementTree.fromstring(report).iter("testcase"):
        file = case.get("classname", "").replace(".", "/") + ".py"
        name = case.get("name", "")
        failed = case.find("failure") is not None or case.find("error") is not None
        tests = found.setdefault(file, {})
        tests[name] = "fail" if failed or tests.get(name) == "fail" else "pass"
    return {file: dict(sorted(found[file].items())) for file in sorted(found)}


def with_report(known: Outcomes, name: str, report: str) -> Outcomes:
    """What is known when the kernel `name` has run the tests of the report. UmlError if there is no such kernel."""
    kernel = find_kernel(name)
    return known | {kernel.version: {"abilities": abilities(kernel), "tests": outcomes_in(report)}}


def table(known: Outcomes, root: Path = ROOT) -> str:
    """The table of all kernels, the oldest first, in Markdown."""
    versions = sorted(known, key=_age)
    lines = [["", *versions], ["---"] * (len(versions) + 1)]
    for what in _all(known[version]["abilities"] for version in versions):
        answers = [known[version]["abilities"].get(what, "no") for version in versions]
        if len(set(answers)) > 1:
            lines.append([what, *answers])
    for file in sorted(_all(known[version]["tests"] for version in versions)):
        cells = [_ended(known[version]["tests"].get(file, {})) for version in versions]
        lines.append([f"{_about(root / file)} ([{Path(file).name}](../{file}))", *cells])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _age(version: str) -> tuple[tuple[int, ...], str]:
    return ordered(version), version


def _all(several: Iterable[Mapping[str, object]]) -> list[str]:
    """The keys of all, each once, in the order in which they come."""
    return list(dict.fromkeys(key for each in several for key in each))


def _ended(tests: Mapping[str, str]) -> str:
    """How many passed, and which did not."""
    if not tests:
        return "not run"
    failed = sorted({name.partition("[")[0] for name, outcome in tests.items() if outcome == "fail"})
    passed = sum(outcome == "pass" for outcome in tests.values())
    return ", ".join([f"{passed} pass", *(f"`{name}` fails" for name in failed)])


def _about(path: Path) -> str:
    """What the tests of a file are about: the beginning of its docstring's first sentence."""
    text = ast.get_docstring(ast.parse(path.read_text())) or path.stem
    return " ".join(text.split()).partition(".")[0].partition(":")[0]


def written(page: str, made: str) -> str:
    """The page with the table in its place."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{made}\n{END}{after}"


def main(*reports: str) -> None:
    """Keep the reports, and write the table."""
    known: Outcomes = json.loads(DATA.read_text())
    for each in reports:
        name, _, file = each.partition("=")
        known = with_report(known, name, Path(file).read_text())
    known = dict(sorted(known.items(), key=lambda item: _age(item[0])))
    DATA.write_text(json.dumps(known, indent=1) + "\n")
    PAGE.write_text(written(PAGE.read_text(), table(known)))


if __name__ == "__main__":
    main(*sys.argv[1:])
