"""`uml snapshot` and `uml clone`: a running machine's disks, and a machine like it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from runtime.machines import cloning
from runtime.machines import description as descriptions
from runtime.machines.description import Description
from tests import needs
from tests.cow.files import pair
from tests.machines.household import Household
from umlfs.errors import UmlError

FILL = """
mkfs.ext4 -q /dev/ubdb && mount /dev/ubdb /mnt && echo one >/mnt/one
(while :; do echo x >>/mnt/busy; done) >/dev/null 2>&1 &
"""


@pytest.mark.guest
@pytest.mark.slow
def test_a_clone_of_a_machine_that_writes(ordinary: Household) -> None:
    uml = ordinary
    base = uml.home / "base.img"
    with base.open("wb") as file:
        file.truncate(64 << 20)
    base.chmod(0o644)
    disk = ("--root", "hostfs:/", "--throwaway", "--init", "", "--ubd", f"ubd1={uml.home}/web.cow,{base}")
    uml.ok("boot", "-d", "--name", "web", "--mem", "64M", *disk)
    uml.ok("exec", "web", "--", "sh", "-c", FILL)
    assert uml.error("clone", "web", "web")[1].startswith("web: a machine of that name is running")
    copy = Path(uml.ok("snapshot", "web").strip())
    assert copy.parent == uml.home
    is_clean(uml, copy)
    assert uml.ok("clone", "--into", uml.home / "run", "web", "other") == "other\n"
    said = uml.ok("exec", "other", "--", "sh", "-c", "mount /dev/ubdb /mnt && cat /mnt/one; echo two >/mnt/two")
    assert said == "one\n"
    assert uml.ok(
        "exec", "web", "--", "sh", "-c", "a=$(wc -c </mnt/busy); sleep 1; ls /mnt; [ $(wc -c </mnt/busy) -gt $a ]"
    ) == ("busy\nlost+found\none\n")
    uml.ok("halt", "other")
    uml.ok("halt", "--now", "web")
    for each in (uml.home / "run").glob("web.cow.*"):
        each.unlink()


def is_clean(uml: Household, copy: Path) -> None:
    """The filesystem in the copy has nothing to replay: it was frozen."""
    raw = uml.home / "raw"
    uml.ok("cow", "merge", copy, raw)
    said = subprocess.run([needs.program("dumpe2fs"), "-h", raw], capture_output=True, text=True, check=True).stdout
    assert "Filesystem state:         clean" in said
    assert "needs_recovery" not in said
    subprocess.run([needs.program("e2fsck"), "-fn", raw], capture_output=True, check=True)


async def refused(tmp_path: Path, match: str, **keys: object) -> None:
    place = tmp_path / "web"
    place.mkdir(exist_ok=True)
    descriptions.save(Description(umid="web", **keys), place / "machine.toml")  # type: ignore[arg-type]
    with pytest.raises(UmlError, match=match):
        await cloning.clone(place, "other")


async def test_what_two_machines_cannot_have(tmp_path: Path) -> None:
    cow, base = pair(tmp_path, 64 << 10)
    await refused(tmp_path, "is written through", root=f"hostfs:{tmp_path}")
    await refused(tmp_path, "is no COW file", ubds=(f"ubd1={base}",))
    await refused(tmp_path, "is no COW file", ubds=(f"ubd1d={cow}",))


async def test_a_machine_without_disks_is_described_anew(tmp_path: Path) -> None:
    _, base = pair(tmp_path, 64 << 10)
    place = tmp_path / "web"
    place.mkdir()
    networks = ("lab:ip=10.9.0.5,mac=02:00:00:00:00:01,vlan=3", "user", "lab:ip=10.9.0.6")
    found = Description(umid="web", ubds=(f"ubd1r={base}",), networks=networks, publish=("80:80",), memory=1 << 28)
    descriptions.save(found, place / "machine.toml")
    made, remarks = await cloning.clone(place, "other")
    assert (made.umid, made.ubds, made.publish) == ("other", (f"ubd1r={base}",), ())
    assert made.networks == ("lab:vlan=3", "user", "lab")
    assert remarks == ["it publishes no ports: 80:80 lead to web"]
