"""Volumes of LVM, LUKS and MD, made by their own programs and the guest's kernel, and looked into by umlfs."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
import trio

from runtime.images.inside import in_guest
from runtime.volumes.find import volumes
from tests import needs
from tests.guest.disks import MIB, empty
from tests.ordinary import ROOT
from umlfs.blocks.raw import RawDevice, open_file
from umlfs.errors import UmlError

KEY = b"open sesame"
MAKE = r"""
umask 0
modprobe dm-mod; modprobe dm-crypt; modprobe raid1
export LVM_SYSTEM_DIR=/tmp/lvm DM_DISABLE_UDEV=1
mkdir -p $LVM_SYSTEM_DIR /mnt
cat > $LVM_SYSTEM_DIR/lvm.conf <<'end'
global { event_activation=0 }
activation { udev_sync=0 udev_rules=0 monitoring=0 }
devices { use_devicesfile=0 obtain_device_list_from_udev=0 external_device_info_source="none" }
end
t() { timeout 60 "$@" < /dev/null > /tmp/said 2>&1 || { echo "$*: $?" >&2; cat /tmp/said >&2; exit 1; }; }
fill() { t mkfs.ext4 -q "$1"; t mount "$1" /mnt; echo "$2" > /mnt/name; seq 300000 > /mnt/data; umount /mnt; }
t pvcreate -y $(readlink -f /dev/disk1) $(readlink -f /dev/disk2) $(readlink -f /dev/other)
t vgcreate vg $(readlink -f /dev/disk1) $(readlink -f /dev/disk2) $(readlink -f /dev/other)
t lvcreate -y -Zn -Wn -L 16M -n root vg $(readlink -f /dev/disk1)
t lvcreate -y -Zn -Wn -L 12M -n the-home vg $(readlink -f /dev/disk1)
t lvextend -L +12M vg/root $(readlink -f /dev/disk2)
t lvcreate -y -Zn -Wn -i 2 -I 64k -L 16M -n striped vg $(readlink -f /dev/disk1) $(readlink -f /dev/disk2)
t lvcreate -y -Zn -Wn -L 4M -n away vg $(readlink -f /dev/other)
for name in root the-home striped; do fill /dev/vg/$name $name; done
t vgchange -an vg
printf '%s' "open sesame" > /tmp/key
for kind in luks1 luks2; do
    t cryptsetup open --key-file /tmp/key /dev/$kind $kind
done
fill /dev/mapper/luks1 luks1
t pvcreate -y /dev/mapper/luks2
t vgcreate secret /dev/mapper/luks2
t lvcreate -y -Zn -Wn -L 20M -n root secret
fill /dev/secret/root secret
t vgchange -an secret
for kind in luks1 luks2; do t cryptsetup close $kind; done
raid="--level=1 --raid-devices=2 --metadata=1.2 --assume-clean --bitmap=none"
t mdadm --create /dev/md0 --run $raid /dev/member missing
t mdadm --stop /dev/md0
sync
"""


def run(*words: str | Path, data: bytes = b"") -> str:
    done = subprocess.run([needs.program(str(words[0])), *map(str, words[1:])], input=data, capture_output=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the disks."""
    needs.root()
    needs.program("lvm"), needs.program("mdadm"), needs.program("cryptsetup")
    path = tmp_path_factory.mktemp("volumes")
    sizes = {"disk": 130, "other": 32, "luks1": 48, "luks2": 64, "member": 40}
    for name, size in sizes.items():
        empty(path / f"{name}.img", size * MIB)
    run("sfdisk", "-q", path / "disk.img", data=b"label: gpt\nsize=60M\nsize=60M\n")
    (path / "key").write_bytes(KEY)
    for kind in ("luks1", "luks2"):
        words = ["-q", "--type", kind, "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"]
        run("cryptsetup", "luksFormat", *words, path / f"{kind}.img", path / "key")

    async def make() -> None:
        files = {name: open_file(path / f"{name}.img", read_only=False) for name in sizes}
        devices = {name: RawDevice(file, file.size()) for name, file in files.items()}
        try:
            await in_guest(devices, MAKE, "the volumes could not be made")
        finally:
            for file in files.values():
                file.close()

    trio.run(make)
    (path / "tree").mkdir()
    (path / "tree/name").write_text("member\n")
    empty(path / "fs.img", 16 * MIB)
    run("mkfs.ext4", "-q", "-d", path / "tree", path / "fs.img")
    lines = run("mdadm", "--examine", path / "member.img").splitlines()
    offset = int(next(line for line in lines if "Data Offset" in line).split()[3]) * 512
    with open(path / "member.img", "r+b") as file:
        file.seek(offset)
        file.write((path / "fs.img").read_bytes())
    return path


def uml(place: Path, *words: str, data: bytes = b"") -> tuple[int, str, str]:
    command = [sys.executable, "-P", "-c", "from runtime.cli import main; main()", *words]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(place)}
    done = subprocess.run(command, cwd=place, env=environment, input=data, capture_output=True, timeout=200)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


DATA = "".join(f"{number}\n" for number in range(1, 300001))


def test_what_the_guests_kernel_wrote_is_read(place: Path) -> None:
    for name in ("root", "the-home", "striped"):
        assert uml(place, "cat", f"disk.img:vg/{name}:/name", f"disk.img:vg/{name}:/data") == (0, f"{name}\n{DATA}", "")
    assert uml(place, "cat", "--key-file", "key", "luks1.img:/name", "luks1.img:luks:/data") == (
        0,
        f"luks1\n{DATA}",
        "",
    )
    found = uml(place, "cat", "--passphrase", "luks2.img:secret/root:/name", "luks2.img:/data", data=KEY + b"\n")
    assert found == (0, f"secret\n{DATA}", "")
    assert uml(place, "cat", "member.img:/name", "member.img:md:/name") == (0, "member\nmember\n", "")


def test_what_there_is_is_said(place: Path) -> None:
    status, _, said = uml(place, "ls", "disk.img")
    assert status == 2
    assert all(f"vg/{name} (ext4)" in said for name in ("root", "the-home", "striped"))
    status, _, said = uml(place, "ls", "disk.img:vg/away")
    assert "a part of it lies on another disk" in said
    assert (status, said.count("\n")) == (1, 1)
    status, _, said = uml(place, "ls", "disk.img:vg/none")
    assert (status, said.count("\n")) == (2, 1)
    assert "give its key with --key-file or --passphrase" in uml(place, "ls", "luks1.img")[2]
    assert "no key that was given fits" in uml(place, "ls", "--passphrase", "luks2.img", data=b"wrong\n")[2]
    status, shown, _ = uml(place, "image", "info", "--key-file", "key", "luks2.img")
    assert status == 0
    assert "volume secret/root" in shown


def test_a_volume_is_converted_changed_and_compared(place: Path) -> None:
    assert uml(place, "image", "convert", "disk.img:vg/root", "root.tar")[0] == 0
    assert "name" in run("tar", "-tf", place / "root.tar")
    assert uml(place, "image", "convert", "--key-file", "key", "luks2.img:secret/root", "secret.img")[0] == 0
    (place / "new").write_text("changed\n")
    for words in (["disk.img:vg/striped:/new"], ["--key-file", "key", "luks2.img:secret/root:/new"]):
        *options, target = words
        status, _, said = uml(place, "cp", *options, "new", target)
        assert (status, said) == (0, "")
        assert uml(place, "cat", *options, target)[1] == "changed\n"
    status, shown, _ = uml(place, "diff", "--key-file", "key", "secret.img:/", "luks2.img:secret/root:/")
    assert status == 1
    assert "new" in shown
    status, _, said = uml(place, "cp", "new", "member.img:md:/new")
    assert status == 1
    assert "only read" in said


def test_a_machine_has_its_root_on_one(place: Path) -> None:
    status, _, said = uml(place, "run", "--dry-run", "--root", "disk.img:vg/root", "--", "true")
    assert status == 0, said
    words = ["--key-file", "key", "--root", "luks2.img:secret/root", "--save", "machine.toml"]
    assert uml(place, "boot", *words) == (0, "", "")
    file = open_file(place / "luks2.img")  # somebody has it in use: it is a volume all the same
    try:
        assert "luks2.img: in use by" in uml(place, "run", *words[:4], "--", "true")[2]
    finally:
        file.close()


@pytest.mark.parametrize(
    ("magic", "at", "what"),
    [
        (b"LUKS\xba\xbe", 0, "encrypted (LUKS), not a filesystem; name a volume in it"),
        (b"LVM2 001", 536, "a physical volume of LVM, not a filesystem; name a volume in it"),
        (b"SWAPSPACE2", 4086, "no filesystem in it that the guest could mount; attach it with --ubd"),
    ],
)
def test_what_holds_volumes_is_no_filesystem(tmp_path: Path, magic: bytes, at: int, what: str) -> None:
    """Nothing is booted to find that out."""
    with open(tmp_path / "x.img", "wb") as file:
        file.truncate(MIB)
        file.seek(at)
        file.write(magic)
    for word in ("--root=raw:x.img", "--mount=/m=raw:x.img"):
        status, _, said = uml(tmp_path, "run", word, "--", "true")
        assert status == 125
        assert said.startswith(f"uml: raw:x.img: {what}"), said


def test_an_encrypted_one_is_mounted_and_served(place: Path) -> None:
    """The keys go along to what goes on in the background."""
    needs.path("/dev/fuse")
    (place / "at").mkdir()
    assert uml(place, "mount", "luks1.img", "at")[2].endswith("give its key with --key-file or --passphrase\n")
    assert uml(place, "mount", "--passphrase", "luks2.img:secret/root", "at", data=KEY + b"\n") == (0, "", "")
    try:
        assert (place / "at/name").read_text() == "secret\n"
    finally:
        assert uml(place, "umount", "at") == (0, "", "")
    command = [sys.executable, "-P", "-c", "from runtime.cli import main; main()", "serve", "nbd", "--key-file", "key"]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(place)}
    words = [*command, "luks1.img:luks", "--socket", "s"]
    with subprocess.Popen(words, cwd=place, env=environment, stdout=subprocess.PIPE, process_group=0) as server:
        assert server.stdout is not None
        assert server.stdout.readline().startswith(b"nbd+unix:")
        said = run("nbdinfo", f"nbd+unix:///?socket={os.path.relpath(place / 's')}")
        server.terminate()
    assert "ext4" in said


@pytest.mark.parametrize("name", ["disk", "luks1", "luks2", "member"])
def test_damage_is_said(place: Path, name: str) -> None:
    """Every byte of what describes the volumes may be another."""
    random = Random(name)
    data = bytearray((place / f"{name}.img").read_bytes()[: 9 * MIB])
    path = place / f"damaged-{name}.img"
    starts = [at for at in range(0, len(data), 512) if any(data[at : at + 512])][:200]

    async def look() -> None:
        file = open_file(path, read_only=True)
        try:
            found = await volumes(RawDevice(file, file.size()), [])
            assert all(each.device is not None or each.problem for each in found)
        finally:
            file.close()

    for _ in range(40):
        changed = bytearray(data)
        for _ in range(random.randrange(1, 6)):
            changed[random.choice(starts) + random.randrange(512)] = random.randrange(256)
        path.write_bytes(changed)
        with contextlib.suppress(UmlError, OSError):
            trio.run(look)
