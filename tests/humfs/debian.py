"""A small Debian as a tar archive, made of what this machine has installed: no network, no root."""

from __future__ import annotations

import io
import os
import re
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path

WANTED = ("apt",)
"""Besides the essential packages."""
STATE = (
    "/var/lib/dpkg/status",
    "/var/lib/dpkg/diversions",
    "/etc/ld.so.cache",
    "/etc/nsswitch.conf",
    *(f"/etc/pam.d/common-{kind}" for kind in ("account", "auth", "password", "session", "session-noninteractive")),
)
ACCOUNTS = {
    "passwd": (
        "root:x:0:0:root:/root:/bin/sh\n"
        "_apt:x:42:65534::/nonexistent:/usr/sbin/nologin\n"
        "nobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n"
    ),
    "group": "root:x:0:\ntty:x:5:\nmail:x:8:\nshadow:x:42:\nstaff:x:50:\nnogroup:x:65534:\n",
    "shadow": "root:*:19000:0:99999:7:::\nnobody:*:19000:0:99999:7:::\n",
}
APT = ("var/lib/dpkg/updates", "var/lib/apt/lists/partial", "var/cache/apt/archives/partial")
DIRECTORIES = ("mnt", "tmp", "root", "proc", "sys", "dev", "run", "usr/local/bin", "var/tmp", *APT)
_QUERY = "${Package}\\t${Essential}\\t${Pre-Depends}, ${Depends}\\t${Provides}\\t${Architecture}\\n"


def packages(wanted: Sequence[str] = WANTED) -> list[str]:
    """The essential packages, those wanted, and what all of them depend on."""
    output = subprocess.run(["dpkg-query", "-W", "-f", _QUERY], check=True, capture_output=True, text=True).stdout
    needs: dict[str, list[str]] = {}
    providers: dict[str, str] = {}
    pending = list(wanted)
    for line in output.splitlines():
        name, essential, depends, provides, _ = line.split("\t")
        needs[name] = re.findall(r"(?:^|[,|])\s*([a-z0-9.+-]+)", depends)
        providers |= dict.fromkeys(re.findall(r"(?:^|,)\s*([a-z0-9.+-]+)", provides), name)
        if essential == "yes":
            pending.append(name)
    found: set[str] = set()
    while pending:
        name = pending.pop()
        name = name if name in needs else providers.get(name, name)
        if name in needs and name not in found:
            found.add(name)
            pending += needs[name]
    return sorted(found)


def pack(archive: Path, wanted: Sequence[str] = WANTED) -> None:
    """Write the archive."""
    names = packages(wanted)
    listed = subprocess.run(["dpkg", "-L", *names], check=True, capture_output=True, text=True).stdout.splitlines()
    info = [str(path) for name in names for path in Path("/var/lib/dpkg/info").glob(f"{name}[.:]*")]
    documentation = ("/usr/share/doc/", "/usr/share/man/", "/usr/share/locale/", "/usr/share/info/")
    with tarfile.open(archive, "w") as tar:
        for name in ("bin", "sbin", "lib", "lib64"):
            if os.path.islink(f"/{name}"):
                tar.add(f"/{name}", name)
        for path in dict.fromkeys([*listed, *info, *STATE, *_alternatives()]):
            place = os.path.realpath(os.path.dirname(path)) + "/" + os.path.basename(path)
            readable = os.path.islink(path) or os.access(path, os.R_OK)
            if path != "/." and os.path.lexists(path) and readable and not path.startswith(documentation):
                tar.add(place, place.lstrip("/"), recursive=False)
        for name, text in ACCOUNTS.items():
            mode, gid = (0o640, 42) if name == "shadow" else (0o644, 0)
            _add(tar, f"etc/{name}", text.encode(), mode, gid)
        for name in DIRECTORIES:
            _add_directory(tar, name, 0o1777 if name.endswith("tmp") else 0o755)


def _alternatives() -> list[str]:
    """The links of update-alternatives, such as /usr/bin/awk."""
    links = list(map(str, Path("/etc/alternatives").iterdir())) if os.path.isdir("/etc/alternatives") else []
    return [*links, "/usr/bin/awk", "/usr/bin/which", "/usr/bin/pager"]


def _add(tar: tarfile.TarFile, name: str, data: bytes, mode: int, gid: int) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.gid = len(data), mode, gid
    tar.addfile(info, io.BytesIO(data))


def _add_directory(tar: tarfile.TarFile, name: str, mode: int) -> None:
    info = tarfile.TarInfo(name)
    info.type, info.mode = tarfile.DIRTYPE, mode
    tar.addfile(info)


CONTROL = """\
Package: umlfs-probe
Version: 1
Architecture: all
Maintainer: Nobody <nobody@example.org>
Description: a package whose scripts need root
"""
POSTINST = """\
#!/bin/sh
set -e
[ "$1" = configure ] || exit 0
cp /usr/bin/id /usr/local/bin/suid-id
chown 4321:shadow /usr/local/bin/suid-id
chmod 4755 /usr/local/bin/suid-id
mkdir -p /var/lib/probe
chown 1234:65534 /var/lib/probe
mknod /var/lib/probe/zero c 1 5
"""


def build_package(directory: Path) -> Path:
    """A package with a maintainer script that does what an ordinary user could not."""
    tree = directory / "probe"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "usr/local/bin").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(CONTROL)
    (tree / "DEBIAN/postinst").write_text(POSTINST)
    (tree / "DEBIAN/postinst").chmod(0o755)
    package = directory / "probe.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", tree, package], check=True, capture_output=True)
    return package
