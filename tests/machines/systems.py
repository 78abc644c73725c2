"""A Debian with systemd, as every kind of root: made of what this machine has installed, without network and root."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Final

from tests import needs
from tests.humfs import debian

WANTED: Final = ("systemd-sysv", "udev")
FILES: Final = {
    # With one systemd does not ask a person for what a new system lacks.
    "etc/machine-id": "0123456789abcdef0123456789abcdef\n",
    "etc/hostname": "guest\n",
    "etc/fstab": "",
    "etc/systemd/network/05-dhcp.network": "[Match]\nName=en* eth*\n\n[Network]\nDHCP=yes\n",
    "etc/os-release": 'PRETTY_NAME="Debian under test"\nID=debian\n',
}
NETWORKD: Final = "systemd-networkd.service"
LINKS: Final = {
    "etc/systemd/system/getty.target.wants/getty@tty1.service": "/lib/systemd/system/getty@.service",
    f"etc/systemd/system/multi-user.target.wants/{NETWORKD}": f"/lib/systemd/system/{NETWORKD}",
    "etc/systemd/system/default.target": "/lib/systemd/system/multi-user.target",
}
IMAGE_SIZE: Final = 1 << 30


def make_archive(folder: Path) -> Path:
    """A tar archive of the system."""
    needs.path("/sbin/init")
    archive = folder / "debian.tar"
    debian.pack(archive, WANTED)
    extra = folder / "extra"
    for name, text in FILES.items():
        (extra / name).parent.mkdir(parents=True, exist_ok=True)
        (extra / name).write_text(text)
    for name, target in LINKS.items():
        (extra / name).parent.mkdir(parents=True, exist_ok=True)
        (extra / name).symlink_to(target)
    with tarfile.open(archive, "a") as tar:
        for path in sorted(extra.rglob("*")):
            tar.add(path, path.relative_to(extra), recursive=False, filter=_as_root)
    shutil.rmtree(extra)
    return archive


def _as_root(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.uid = info.gid = 0
    info.uname = info.gname = "root"
    info.mode = info.mode | 0o644 if info.isfile() else 0o755
    return info


def unpack(archive: Path, folder: Path) -> Path:
    """The system as a directory of the host: owned by root if we are, else by the caller."""
    tree = folder / "tree"
    tree.mkdir()
    owner = ["--same-owner", "--numeric-owner"] if os.geteuid() == 0 else ["--no-same-owner"]
    subprocess.run(["tar", "-C", tree, *owner, "-xpf", archive], check=True)
    tree.chmod(0o755)
    return tree


def make_image(tree: Path, image: Path) -> Path:
    """The system in an ext4 image."""
    image.touch()
    os.truncate(image, IMAGE_SIZE)
    subprocess.run([needs.program("mke2fs"), "-qF", "-t", "ext4", "-d", tree, image], check=True)
    return image
