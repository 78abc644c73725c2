"""What makes a Debian root one for User-mode Linux: the files and settings that the HOWTO has one make by hand."""

from __future__ import annotations

import ctypes
import hashlib
import io
import os
import re
import secrets
import shlex
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from runtime.images.formats import Format
from runtime.kernels.elf import strip_debugging
from umlfs.errors import UmlError, UsageError

BASE: Final = ("systemd-sysv", "udev", "kmod", "iproute2", "e2fsprogs")
"""What a system needs to come up, beside the essential packages and apt."""
SSH: Final = "openssh-server"
RESOLVER: Final = "systemd-resolved"
_RESOLVER_INCLUDED: Final = frozenset({"stretch", "buster", "bullseye"})
"""Suites in which systemd has it in its own package."""
_HOSTNAME: Final = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))*\Z")
_SUITE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]*\Z")
_PACKAGE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+:=~/-]*\Z")
_KEY: Final = re.compile(r"(ssh|ecdsa|sk)-[\w@.-]+ [A-Za-z0-9+/=]+( .*)?\Z")

_NETWORK: Final = """\
# The first network device of User-mode Linux (vec0:transport=...).
[Match]
Name=vec*

[Network]
DHCP=yes
"""
_GETTY: Final = """\
# User-mode Linux has only the consoles that its command line names.
[Unit]
ConditionPathExists=/dev/%I
"""
_SSH_KEYS: Final = """\
# The image has no keys of its own: each machine makes some when it first starts.
[Service]
ExecStartPre=
ExecStartPre=/usr/bin/ssh-keygen -A
ExecStartPre=/usr/sbin/sshd -t
"""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a Debian root is to be like. UsageError for what makes no sense."""

    suite: str
    include: tuple[str, ...] = ()
    """Further packages."""
    hostname: str = "uml"
    root_password: str | None = None
    """Empty for a login without one. None: nobody logs in by password."""
    ssh_key: str | None = None
    """A public key that may log in as root."""
    mirrors: tuple[str, ...] = ()
    """As mmdebstrap takes them: URLs, lines of a sources.list, files. Without any, what this host's apt uses."""
    modules: Path | None = None
    """The directory of the kernel's modules, which go along without their debugging information."""
    epoch: int | None = None

    def __post_init__(self) -> None:
        _require(self.suite, _SUITE, "no name of a suite", "say bookworm, trixie, ...")
        _require(self.hostname, _HOSTNAME, "no host name", "it is of letters, digits and hyphens")
        for package in self.include:
            _require(package, _PACKAGE, "no name of a package", "separate names by commas")
        if self.ssh_key is not None:
            _require(self.ssh_key.strip(), _KEY, "no public key of ssh", "name a file such as ~/.ssh/id_ed25519.pub")

    @property
    def packages(self) -> tuple[str, ...]:
        """All packages that are asked for."""
        resolver = () if self.suite in _RESOLVER_INCLUDED else (RESOLVER,)
        ssh = (SSH,) if self.ssh_key is not None else ()
        return tuple(dict.fromkeys((*BASE, *resolver, *ssh, *self.include)))

    @property
    def has_ssh(self) -> bool:
        """Whether somebody can log in from afar: then each machine needs host keys of its own."""
        return SSH in map(_name, self.packages)


def _name(package: str) -> str:
    """The package alone, of a word that may have an architecture, a version or a suite."""
    return re.split("[:=/]", package)[0]


def _require(text: str, pattern: re.Pattern[str], what: str, way_out: str) -> None:
    if not pattern.match(text):
        raise UsageError(f"'{text[:60]}' is {what}", way_out)


def commands(recipe: Recipe) -> Iterator[str]:
    """What the shell is to do on the host when all is installed; `$1` is the new root."""
    services = ["systemd-networkd", "console-getty"]
    if recipe.suite in _RESOLVER_INCLUDED:
        services.append(RESOLVER)
    yield f'chroot "$1" systemctl --quiet enable {" ".join(services)}'
    yield 'rm -f "$1"/etc/ssh/ssh_host_*_key* "$1"/var/lib/dbus/machine-id'
    if recipe.root_password is not None:
        yield f'chroot "$1" usermod --password {shlex.quote(hashed(recipe.root_password, recipe.epoch))} root'


def hashed(password: str, epoch: int | None) -> str:
    """What /etc/shadow has for a password. With an `epoch` the same for the same password, else salted at random."""
    if not password:
        return ""
    salt = secrets.token_hex(8) if epoch is None else hashlib.sha256(f"{epoch} {password}".encode()).hexdigest()[:16]
    try:
        crypt = ctypes.CDLL("libcrypt.so.1").crypt
    except OSError as error:
        raise UmlError(f"passwords cannot be hashed: {error}", "install it with `apt install libcrypt1`") from None
    crypt.restype = ctypes.c_char_p
    crypt.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
    result: bytes | None = crypt(password.encode(), f"$6${salt}".encode())
    if result is None or not result.startswith(b"$6$"):
        raise UmlError("this host's libcrypt knows no SHA-512", "use an ssh key")
    return result.decode()


# Files ----------------------------------------------------------------------------------------


def files(recipe: Recipe, format_: Format) -> bytes:
    """The archive of the files that go over what the packages brought."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, data in _members(recipe, format_):
            info.size = len(data)
            info.mtime = recipe.epoch if recipe.epoch is not None else _now()
            archive.addfile(info, io.BytesIO(data))
    return packed.getvalue()


def _now() -> int:
    import time

    return int(time.time())


def _members(recipe: Recipe, format_: Format) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    short = recipe.hostname.partition(".")[0]
    names = recipe.hostname if short == recipe.hostname else f"{recipe.hostname} {short}"
    texts = {
        "etc/fstab": fstab(format_),
        "etc/hostname": f"{recipe.hostname}\n",
        "etc/hosts": f"127.0.0.1 localhost\n127.0.1.1 {names}\n::1 localhost ip6-localhost ip6-loopback\n",
        "etc/machine-id": "",
        "etc/systemd/network/20-vec.network": _NETWORK,
        "etc/systemd/system/getty@.service.d/uml.conf": _GETTY,
    }
    if recipe.has_ssh:
        texts["etc/systemd/system/ssh.service.d/keys.conf"] = _SSH_KEYS
    if recipe.ssh_key is not None:
        yield _info("root/.ssh", tarfile.DIRTYPE, 0o700), b""
        yield _info("root/.ssh/authorized_keys", mode=0o600), f"{recipe.ssh_key.strip()}\n".encode()
    for name, text in texts.items():
        yield _info(name), text.encode()
    link = _info("etc/resolv.conf", tarfile.SYMTYPE, 0o777)
    link.linkname = "../run/systemd/resolve/stub-resolv.conf"
    yield link, b""
    if recipe.modules is not None:
        yield from _modules(recipe.modules)


def _info(name: str, kind: bytes = tarfile.REGTYPE, mode: int = 0o644) -> tarfile.TarInfo:
    info = tarfile.TarInfo(f"./{name}")
    info.type, info.mode = kind, mode
    info.uname = info.gname = "root"
    return info


def fstab(format_: Format) -> str:
    """The guest's table of filesystems."""
    if format_.is_disk:
        root = "/dev/ubda / ext4 defaults,errors=remount-ro 0 1\n"
    elif format_ in (Format.HUMFS, Format.DIRECTORY):
        root = "root / virtiofs defaults 0 0\n"
    else:
        root = "# The root is whatever this was unpacked on.\n"
    return f"# device place type options dump pass\n{root}"


def _modules(directory: Path) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    top = f"lib/modules/{directory.name}"
    for path, names, found in os.walk(directory):
        names.sort()
        below = os.path.relpath(path, directory)
        yield _info(os.path.normpath(f"{top}/{below}"), tarfile.DIRTYPE, 0o755), b""
        for name in sorted(found):
            with open(os.path.join(path, name), "rb") as file:
                data = file.read()
            if name.endswith(".ko"):
                data = strip_debugging(data)
            yield _info(os.path.normpath(f"{top}/{below}/{name}")), data
