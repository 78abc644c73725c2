"""A cache directory and an environment of each test's own: for a conftest to import."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    for name in ("UML_KERNEL", "UML_BUSYBOX", "TMPDIR", "TMP", "TEMP"):
        monkeypatch.delenv(name, raising=False)
