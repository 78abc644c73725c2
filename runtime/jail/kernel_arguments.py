"""Words of a kernel's command line that have it open something of the host by name: what each of them grants.

Whoever writes such a word has asked for it. All others get nothing by it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from runtime.jail.grants import Grants
from umlfs.errors import UsageError


def grant_words(grants: Grants, words: Iterable[str]) -> None:
    """Add what the words name. UsageError for one that would have the whole host opened."""
    given = [(name, value) for name, equals, value in (word.partition("=") for word in words) if equals]
    for name, value in given:
        if name in _TAKERS:
            _TAKERS[name](grants, value)
        elif name.startswith("vec") and value.startswith("bess,"):
            _card(grants, value)
    values = dict(given)
    if values.get("rootfstype") == "hostfs":
        _hostfs(grants, values.get("rootflags", ""))


def _hostfs(grants: Grants, value: str) -> None:
    directory = value.partition(",")[0]
    if not os.path.isabs(directory) or os.path.realpath(directory) == "/":
        raise UsageError(
            f"the kernel's own hostfs of {directory or '/'} would be this host's whole root",
            "name a directory of it, use --root hostfs:/ (our own), or --jail=off",
        )
    grants.hostfs = True
    grants.keep_user = "the kernel's own hostfs works as the caller"
    grants.write.append(Path(directory))


def _iomem(grants: Grants, value: str) -> None:
    _, comma, name = value.partition(",")
    if not comma or not os.path.isabs(name):
        raise UsageError(f"iomem={value}: no absolute path", "write iomem=NAME,/PATH")
    if not os.path.isfile(name):
        raise UsageError(f"iomem={value}: no such file", "make it first, as large as the guest is to see it")
    grants.iomem = True
    grants.write.append(Path(name))


def _device(grants: Grants, value: str) -> None:
    name = value.split(":")[0]
    if os.path.isabs(name):
        grants.sockets.append(Path(name))


def _card(grants: Grants, value: str) -> None:
    """A network card on a socket."""
    for option in value.split(","):
        name, _, path = option.partition("=")
        if name == "dst" and os.path.isabs(path):
            grants.sockets.append(Path(path))


def _read(grants: Grants, value: str) -> None:
    if os.path.isabs(value):
        grants.read.append(Path(value))


def _time_travel(grants: Grants, value: str) -> None:
    kind, _, rest = value.partition(":")
    if kind == "ext":
        _device(grants, rest.partition(":")[2])


_TAKERS: Final[dict[str, Callable[[Grants, str], None]]] = {
    "hostfs": _hostfs,
    "iomem": _iomem,
    "virtio_uml.device": _device,
    "dtb": _read,
    "time-travel": _time_travel,
}
