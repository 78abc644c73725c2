"""One kernel for most of the tests here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.mconsole.guest import Guest, booted


@pytest.fixture(scope="package")
def guest() -> Iterator[Guest]:
    """A machine that tests share: they leave it as they found it."""
    with booted() as found:
        yield found
