"""How much of this host a running machine gets: told, and changed."""

from __future__ import annotations

from pathlib import Path

from runtime.machines import directory
from runtime.process.control_group import PREFIX, own_group, put, refused, with_controllers
from runtime.process.share import PERIOD, Share
from umlfs.errors import UmlError


def group_of(path: Path) -> Path:
    """The control group of the machine with the directory `path`. UmlError if it has none of its own."""
    pid = directory.read_pid(path)
    group = own_group(pid) if pid is not None else None
    if group is None or not group.name.startswith(PREFIX):
        raise UmlError(f"{path.name}: has no share of its own", "start it with --share cpu=2,mem=1G")
    return group


def told(group: Path) -> str:
    """The limits of a group, as `--share` takes them; the name stands before them."""
    quota, _, period = _first(group / "cpu.max").partition(" ")
    words = {
        "cpu": f"{int(quota) / int(period or PERIOD):g}" if quota.isdigit() else "",
        "mem": _memory(_first(group / "memory.max")),
        "io": _first(group / "io.weight").removeprefix("default "),
    }
    limits = ",".join(f"{key}={value}" for key, value in words.items() if value)
    return f"{group.name.removeprefix(PREFIX)}:{limits}"


def change(group: Path, share: Share) -> None:
    """Set what `share` names; the rest stays. UmlError if the host does not allow it."""
    limits = share.limits()
    try:
        with_controllers(group, limits, "--share")
        put(group, limits)
    except OSError as error:
        raise refused("--share", f"{error.filename}: {error.strerror}") from error


def _memory(text: str) -> str:
    if not text.isdigit():
        return ""
    return f"{int(text) >> 20}M" if int(text) % (1 << 20) == 0 else text


def _first(path: Path) -> str:
    try:
        return path.read_text().partition("\n")[0]
    except OSError:
        return ""
