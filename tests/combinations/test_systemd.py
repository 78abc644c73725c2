"""`uml boot -d --wait` of a Debian with systemd, with every pair of what else can be given to it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from tests import needs
from tests.combinations.pairs import Row, named, rows
from tests.machines.household import Household, household
from tests.machines.systems import make_archive, make_image, unpack
from tests.ordinary import OrdinaryUser

pytestmark = [pytest.mark.guest, pytest.mark.slow]

AXES: Final = {
    "root": ("humfs", "tree", "image", "cow", "qcow2"),
    "mount": ("none", "there", "ro"),
    "net": ("none", "user"),
    "consoles": ("none", "port", "pts"),
    "driver": ("virtio", "native"),
    "kernel": ("none", "another"),
    "who": ("ordinary", "root"),
}
MOUNTS: Final = {"there": ["--mount", "/mnt=share"], "ro": ["--mount", "/mnt=share:ro"]}
CONSOLES: Final = {"port": ["con1=port:0"], "pts": ["con1=pts"]}


@pytest.fixture(scope="module")
def houses(callers: Mapping[str, OrdinaryUser | None]) -> Iterator[dict[str, Household]]:
    """One of root's and one of an ordinary user's."""
    with ExitStack() as stack:
        found = {}
        for who, whose in callers.items():
            found[who] = house = stack.enter_context(household(whose))
            furnish(house)
        yield found


def furnish(house: Household) -> None:
    """The system as all that a root can be; in the image and the humfs its files are root's, in the tree the user's."""
    archive = make_archive(house.home)
    image = make_image(unpack(archive, house.home), house.home / "root.image")
    command: list[str | Path] = [needs.program("qemu-img"), "convert", "-f", "raw", "-O", "qcow2", image]
    subprocess.run([*command, house.home / "root.qcow2"], check=True)
    subprocess.run(["cp", "--sparse=always", image, house.home / "base.img"], check=True)
    (house.home / "share").mkdir()
    (house.home / "share/seen").write_text("seen\n")
    if house.user is not None:
        owner = f"{house.user.uid}:{house.user.gid}"
        subprocess.run(["chown", "-hR", owner, *house.home.iterdir()], check=True)
    house.ok("humfs", "create", "tree.humfs", "--size", "2G")
    house.ok("humfs", "import", "tree.humfs", archive)
    house.ok("cow", "create", "root.cow", "base.img")


def words_of(row: Row) -> list[str]:
    root = {"humfs": "humfs:tree.humfs", "tree": "tree", "image": "raw:root.image", "cow": "cow:root.cow"}
    words = ["mem=256M", "--root", root.get(row["root"], "root.qcow2"), "--ubd-driver", row["driver"]]
    return [*words, "--net", row["net"], *MOUNTS.get(row["mount"], []), *CONSOLES.get(row["consoles"], [])]


@pytest.mark.parametrize("row", [pytest.param(row, id=named(row)) for row in rows(AXES)])
def test_a_combination(row: Row, houses: dict[str, Household], another: list[str]) -> None:
    """It comes up, keeps what it writes, and ends."""
    house = houses[row["who"]]
    words = ["umid=it", *words_of(row), *(another if row["kernel"] == "another" else [])]
    assert house.ok("boot", "-d", "--wait", *words) == "it\n"
    try:
        look(row, house)
    finally:
        ended = house.uml("halt", "it")
    assert (ended.returncode, ended.stderr) == (0, b"")
    house.ok("rm", "it")
    assert house.left() == []
    shutil.rmtree(house.home / "tree/kept", ignore_errors=True)
    if row["root"] in ("cow", "image"):
        image = house.home / {"cow": "base.img", "image": "root.image"}[row["root"]]
        subprocess.run([needs.program("e2fsck"), "-fn", image], check=True, capture_output=True)


def look(row: Row, house: Household) -> None:
    assert house.ok("exec", "it", "cat", "/proc/1/comm") == "systemd\n"
    assert house.ok("exec", "it", "systemctl", "is-active", "multi-user.target") == "active\n"
    house.ok("exec", "it", "mkdir", "-p", "/kept")
    if row["mount"] != "none":
        script = "cat /mnt/seen; echo guest 2>/dev/null >/mnt/written || echo refused"
        written = "" if row["mount"] == "there" else "refused\n"
        assert house.ok("exec", "it", "sh", "-c", script) == f"seen\n{written}"
    lines = dict(line.split("  ", 1) for line in house.ok("console", "--list", "it").splitlines())
    assert lines["con1"].startswith({"port": "port:", "pts": "pts:/dev/pts/"}.get(row["consoles"], "null"))
