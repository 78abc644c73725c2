"""`uml boot -d` with every pair of what can be given to it: the machine comes up, does what it is for, ends, and leaves
nothing; or one line says why it cannot be."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from runtime.guest.initramfs import find_busybox
from tests import needs
from tests.combinations.pairs import Row, named, rows
from tests.combinations.world import APPLETS
from tests.guest.caller import eventually
from tests.machines.household import Household, household
from tests.ordinary import OrdinaryUser

pytestmark = pytest.mark.guest

AXES: Final = {
    "root": ("humfs", "host", "tree", "image", "cow", "qcow2", "vmdk", "vdi", "vhdx"),
    "given": ("--root", "ubd0="),
    "disk": ("none", "raw", "qcow2"),
    "init": ("ours", "busybox", "sleep"),
    "mount": ("none", "there", "new"),
    "net": ("none", "user"),
    "consoles": ("none", "port", "pts"),
    "wait": ("none", "wait"),
    "driver": ("virtio", "native"),
    "kernel": ("none", "another"),
    "who": ("ordinary", "root"),
}
FOREIGN: Final = ("qcow2", "vmdk", "vdi", "vhdx")
DISKS: Final = ("image", "cow", *FOREIGN)
INITS: Final = {"ours": ["--init", ""], "busybox": ["--init", "/sbin/init"], "sleep": ["--init", "/bin/sleep", "1000"]}
CONSOLES: Final = {"port": ["con1=port:0"], "pts": ["con1=pts"]}
IN_CI: Final = 3
"""Rows that CI runs; --long runs all."""


@pytest.fixture(scope="module")
def houses(callers: Mapping[str, OrdinaryUser | None]) -> Iterator[dict[str, Household]]:
    """One of root's and one of an ordinary user's, with roots of all kinds."""
    with ExitStack() as stack:
        found = {}
        for who, whose in callers.items():
            found[who] = house = stack.enter_context(household(whose))
            furnish(house)
        yield found


def furnish(house: Household) -> None:
    tree = house.home / "tree"
    for name in ("bin", "sbin", "dev", "proc", "sys", "run", "tmp", "there", "etc"):
        (tree / name).mkdir(parents=True)
    shutil.copyfile(find_busybox(), tree / "bin/busybox")
    (tree / "bin/busybox").chmod(0o755)
    for name in APPLETS:
        (tree / "bin" / name).symlink_to("busybox")
    (tree / "sbin/init").symlink_to("../bin/busybox")
    (tree / "etc/inittab").write_text("::sysinit:/bin/true\n::respawn:/bin/sleep 1000\n")
    (tree / "etc/mark").write_text("root\n")
    for kind in ("raw", "qcow2"):
        disk = house.home / {"raw": "data.img", "qcow2": "data.qcow2"}[kind]
        subprocess.run([needs.program("qemu-img"), "create", "-qf", kind, disk, "4M"], check=True)
    (house.home / "share").mkdir()
    (house.home / "share/seen").write_text("seen\n")
    own(house)


def own(house: Household) -> None:
    if house.user is not None:
        for path in (house.home, *house.home.rglob("*")):
            os.chown(path, house.user.uid, house.user.gid, follow_symlinks=False)


def root_of(house: Household, kind: str) -> str:
    """The root of that kind, as `--root` names it; made when it is first asked for."""
    place = house.home / {"humfs": "tree.humfs", "tree": "tree", "cow": "base.img"}.get(kind, f"root.{kind}")
    if not place.exists():
        if kind == "humfs":
            house.ok("image", "convert", "tree", "humfs:tree.humfs")
        elif kind in FOREIGN:
            image = house.home / root_of(house, "image").removeprefix("raw:")
            words: list[str | Path] = [needs.program("qemu-img"), "convert", "-f", "raw", "-O", kind, image, place]
            subprocess.run(words, check=True)
        else:
            place.touch()
            os.truncate(place, 32 << 20)
            words = [needs.program("mke2fs"), "-qF", "-t", "ext4", "-d", house.home / "tree", place]
            subprocess.run(words, check=True)
        own(house)
    if kind == "cow":
        (house.home / "root.cow").unlink(missing_ok=True)
        house.ok("cow", "create", "root.cow", "base.img")
    return {"humfs": "humfs:tree.humfs", "image": "raw:root.image", "cow": "root.cow,base.img"}.get(kind, place.name)


def selected() -> list[object]:
    found = rows(AXES)
    few = set(range(0, len(found), -(-len(found) // IN_CI)))
    marks = [() if number in few else (pytest.mark.slow,) for number in range(len(found))]
    return [pytest.param(row, id=named(row), marks=mark) for row, mark in zip(found, marks, strict=True)]


@pytest.mark.parametrize("row", selected())
def test_a_combination(row: Row, houses: dict[str, Household], another: list[str]) -> None:
    house = houses[row["who"]]
    words = [*words_of(row, house), *(another if row["kernel"] == "another" else [])]
    done = house.uml("boot", "-d", "umid=it", *words)
    said = done.stderr.decode()
    for word in ("Traceback", "internal error", "Kernel panic"):
        assert word not in said, said
    why = refusal(row)
    if why is not None:
        assert done.returncode in (1, 2), done
        assert why in said, done
        assert house.left() == []
        return
    assert (done.returncode, done.stdout) == (0, b"it\n"), done
    try:
        look(row, house)
    finally:
        ended = house.uml("halt", *(["--now"] if row["init"] == "sleep" else []), "it")
    assert (ended.returncode, ended.stderr) == (0, b"")
    (left,) = json.loads(house.ok("ps", "-a", "--json"))
    assert (left["umid"], left["state"]) == ("it", "ended")
    house.ok("rm", "it")
    if row["root"] in ("cow", "image"):
        image = house.home / {"cow": "base.img", "image": "root.image"}[row["root"]]
        subprocess.run([needs.program("e2fsck"), "-fn", image], check=True, capture_output=True)


def words_of(row: Row, house: Household) -> list[str]:
    kind = row["root"]
    path = "" if kind == "host" else root_of(house, kind)
    words = ["mem=96M", "--ubd-driver", row["driver"]]
    if kind in DISKS and row["given"] == "ubd0=":
        words += [f"ubd0={path.removeprefix('raw:')}"]
    elif kind == "cow":
        words += ["--root", "cow:root.cow"]
    elif kind != "host":
        words += ["--root", path]
    words += [] if kind == "host" else INITS[row["init"]]
    words += {"raw": ["ubd3=data.img"], "qcow2": ["ubd3=data.qcow2"]}.get(row["disk"], [])
    words += {"there": ["--mount", "/there=share"], "new": ["--mount", "/new=share"]}.get(row["mount"], [])
    words += ["--net", row["net"]]
    words += CONSOLES.get(row["consoles"], [])
    words += ["--wait"] if row["wait"] == "wait" else []
    return words


def refusal(row: Row) -> str | None:
    """Why this cannot be, in a word of the error; None if it can."""
    if row["driver"] == "native" and (row["disk"] == "qcow2" or (row["root"] in FOREIGN and row["given"] == "ubd0=")):
        return "native"
    if row["mount"] == "new" and row["root"] != "host":
        return "no such directory"
    return None


def look(row: Row, house: Household) -> None:
    """It is what was asked for."""
    script = ["true"]
    if row["root"] != "host":
        script += ["cat /etc/mark", "echo guest >/etc/written"]
    if row["mount"] != "none":
        script.append(f"cat /{row['mount']}/seen")
    if row["disk"] != "none":
        script.append("head -c 4096 /dev/zero | tr '\\0' w | dd of=/dev/ubdd bs=4096 conv=fsync 2>/dev/null")
    out = house.ok("exec", "it", "--", "sh", "-ec", "; ".join(script))
    assert out == "root\n" * (row["root"] != "host") + "seen\n" * (row["mount"] != "none")
    lines = dict(line.split("  ", 1) for line in house.ok("console", "--list", "it").splitlines())
    assert lines["con1"].startswith({"port": "port:", "pts": "pts:/dev/pts/"}.get(row["consoles"], "null"))


@pytest.mark.slow
@pytest.mark.parametrize("moment", [0.1, 0.4, 1, 2, 4, 8])
@pytest.mark.parametrize("who", ["ordinary", "root"])
def test_killed(who: str, moment: float, houses: dict[str, Household]) -> None:
    """At whatever moment: its processes end, and the name is free."""
    house = houses[who]
    root_of(house, "cow")
    words = ["umid=it", "mem=96M", "--root", "cow:root.cow", *INITS["busybox"], "--net", "user"]
    with subprocess.Popen(
        house.command("boot", *words), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as boot:
        time.sleep(moment)
        boot.kill()
        assert boot.stdout is not None
        said = boot.stdout.read()  # until all that it started has ended
    assert b"Traceback" not in said, said
    assert eventually(lambda: not [each for each in house.left() if each.startswith("process")]), house.left()
    assert house.ok("boot", "-d", "--wait", *words) == "it\n"
    assert house.ok("exec", "it", "cat", "/etc/mark") == "root\n"
    house.ok("halt", "it")
    house.ok("rm", "it")
    subprocess.run([needs.program("e2fsck"), "-fn", house.home / "base.img"], check=True, capture_output=True)
