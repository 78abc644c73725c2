"""What is kept from the kernel's own driver."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.cow.files import BROKEN, as_version, pair
from umlfs.cow.create import create_remote
from umlfs.cow.file import header_at
from umlfs.cow.native import hazards
from umlfs.errors import UmlError


@pytest.mark.parametrize(
    ("size", "words"),
    [(1 << 20, []), (82020, ["repeat other data"]), (32768, ["hangs"]), (1000, ["repeat other data", "hangs"])],
)
def test_sizes(tmp_path: Path, size: int, words: list[str]) -> None:
    cow, backing = pair(tmp_path, size)
    for found in (hazards(str(cow)), hazards(str(tmp_path / "new"), str(backing))):
        assert len(found) == len(words)
        assert all(word in reason for word, reason in zip(words, found, strict=True))
    assert hazards(str(backing)) == hazards(str(backing), raw=True) == [each for each in found if "repeat" in each]


def test_headers(tmp_path: Path) -> None:
    cow, backing = pair(tmp_path, 1 << 20)
    as_version(cow, 2)
    assert hazards(str(cow)) == hazards(str(cow), str(backing)) == []
    assert "it is V2" in hazards(str(cow), "/moved")[0]
    as_version(cow, BROKEN)
    assert hazards(str(cow), "/moved") == []
    create_remote(str(tmp_path / "remote"), "nbd://host/name", 1 << 20)
    assert "nbd://host/name is not a file" in hazards(str(tmp_path / "remote"))[0]
    huge = tmp_path / "huge"
    create_remote(str(huge), "nbd://host/name", 1 << 43)
    assert "too much" in hazards(str(huge))[0]


def test_mixed_groups_and_damage(tmp_path: Path) -> None:
    cow, _ = pair(tmp_path, 1 << 20)
    with cow.open("r+b") as file:
        file.seek(header_at(str(cow)).bitmap_offset)
        file.write(b"\x01")
    assert "partly" in hazards(str(cow))[0]
    os.truncate(cow, 8192)
    with pytest.raises(UmlError, match="ends within its bitmap"):
        hazards(str(cow))
