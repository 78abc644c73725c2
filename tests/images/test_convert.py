"""Any format into any other and back, compared; and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import needs
from tests.images import entries
from tests.images.making import make
from umlfs.cow.create import create

NAMES = {"raw": "x.img", "qcow2": "x.qcow2", "humfs": "x.humfs", "dir": "dir:x", "tar": "x.tar", "oci": "x.oci"}


@pytest.mark.guest
@pytest.mark.parametrize("first", [*NAMES, "cow"])
async def test_there_and_back(first: str, tmp_path: Path) -> None:
    needs.root()
    entries.make_tree(tmp_path / "tree")
    wanted = entries.of_file(await make(tmp_path / "tree", tmp_path / "tree.tar"))
    (tmp_path / "first").mkdir()
    if first == "cow":
        create(str(tmp_path / "first/cow"), str(await make(tmp_path / "tree.tar", tmp_path / "first/x.img")))
        start = tmp_path / "first/cow"
    else:
        start = await make(tmp_path / "tree.tar", place(tmp_path / "first", first))
    for second in NAMES:
        (tmp_path / second).mkdir()
        made = await make(start, place(tmp_path / second, second))
        back = await make(made, tmp_path / second / "back.tar")
        assert entries.of_file(back) == wanted, second


def place(directory: Path, name: str) -> str:
    scheme, colon, rest = NAMES[name].rpartition(":")
    return f"{scheme}{colon}{directory / rest}"
