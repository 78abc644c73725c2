"""The page of all benchmarks."""

from __future__ import annotations

from tests.benchmarks.__main__ import page
from tests.benchmarks.guest_files import show
from tests.benchmarks.ratio import table
from tests.benchmarks.ratios_in import Ratio, ratios


def test_ratios_of_both_kinds_of_tables() -> None:
    sides = show({"find, cold": {"kernel": 0.25, "auto": 0.5, "always": 0.2}, "rm -rf": {"kernel": 1, "auto": 3}})
    assert ratios(sides) == [
        Ratio("find, cold (auto)", 2.0),
        Ratio("find, cold (always)", 0.8),
        Ratio("rm -rf (auto)", 3.0),
    ]
    assert ratios(table({"the peer": 2.0, "ours": 1.0}, "the peer")) == [Ratio("ours", 0.5)]
    assert ratios("nothing of the kind\n") == []


def test_a_failed_one_is_told() -> None:
    text = page({"one": (0, "fine\n"), "two": (1, "no such peer\n")}, "A machine.", "picture.png")
    assert "(picture.png)" in text
    assert "Failed with exit status 1.\n\n```text\nno such peer\n```" in text
    assert "## one\n\n```text\nfine\n```" in text
