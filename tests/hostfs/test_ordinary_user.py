"""The contract as an ordinary user, who cannot give files away and may not open everything."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.filesystem import CHECKS, name_of


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | None]:
    directory = tmp_path_factory.mktemp("user")
    done = subprocess.run(
        [sys.executable, "-m", "tests.hostfs.as_user", directory],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        check=True,
    )
    found: dict[str, str | None] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("way", ["stateless", "handles"])
@pytest.mark.parametrize("name", [name_of(check) for check in CHECKS])
def test_contract(name: str, way: str, outcomes: dict[str, str | None]) -> None:
    failure = outcomes[f"{name}-{way}"]
    assert failure is None, failure
