"""What the tests of combinations have in common."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

import pytest

from tests.combinations.kernels import another_kernel
from tests.ordinary import OrdinaryUser


@pytest.fixture(scope="module")
def callers(user: OrdinaryUser) -> Mapping[str, OrdinaryUser | None]:
    """Those of the axis `who`. Where an ordinary user runs the tests, both are that one."""
    return {"root": None, "ordinary": user if os.geteuid() == 0 else None}


@pytest.fixture(scope="module")
def another() -> Iterator[list[str]]:
    """The options that name another kernel."""
    with another_kernel() as words:
        yield words
