"""Comparing by ratios: run in turn, again and again, so that whatever else the machine does hits all alike."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping


def rounds(usual: int) -> int:
    """How many rounds to do: `usual`, unless UMLFS_BENCHMARK_ROUNDS says fewer."""
    return min(usual, int(os.environ.get("UMLFS_BENCHMARK_ROUNDS") or usual))


def measure(
    contestants: Mapping[str, Callable[[], object]],
    rounds: int,
    before: Mapping[str, Callable[[], object]] | None = None,
) -> dict[str, float]:
    """The median time of each in seconds, over `rounds` rounds in each of which every one runs once. What is called
    `before` one, by its name, does not count."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    order = list(contestants.items())
    for _ in range(rounds):
        order.append(order.pop(0))  # each in turn follows each: what one leaves in the caches helps or hurts the next
        for name, run in order:
            os.sync()  # what the one before left to be written is not this one's load
            (before or {}).get(name, lambda: None)()
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(each) for name, each in times.items()}


def table(medians: Mapping[str, float], reference: str) -> str:
    """A line for each: its median, and how many times as fast as it the reference is."""
    lines = [f"{'':<24}{'median':>10}{'against ' + reference:>24}"]
    for name, median in medians.items():
        lines.append(f"{name:<24}{median:>9.3f}s{median / medians[reference]:>23.2f}x")
    return "\n".join(lines)
