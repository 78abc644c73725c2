"""Users with machines."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.machines.household import Household, household
from tests.ordinary import OrdinaryUser


@pytest.fixture
def me() -> Iterator[Household]:
    """The user who runs the tests."""
    with household() as somebody:
        yield somebody


@pytest.fixture
def ordinary(user: OrdinaryUser) -> Iterator[Household]:
    """An ordinary user."""
    with household(user if os.geteuid() == 0 else None) as somebody:
        yield somebody
