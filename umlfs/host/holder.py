"""Who holds something that somebody else wants: a process, in words that its owner knows it by."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Final

COMMAND_MAX: Final = 80
"""Characters of a command that are shown."""
PROGRAMS: Final = ("uml", "mount.fuse.umlfs")
"""Ours that hold something for long. Their interpreter is no name for them."""
AS_UML: Final = ("umlfs/starting.py", "from umlfs.entry import uml; uml()")
"""How the words end by which `uml` is started otherwise."""
MOUNT: Final = "fuse.umlfs"


def described(pid: int) -> str | None:
    """Process `pid`: its machine, our command, or the name of its program. None if it is gone."""
    words = _command(pid)
    if words is None:
        return None
    if machine := _machine(pid):
        return f"the machine {machine} (pid {pid})"
    ours = _ours(words)
    if not ours:
        return f"{_name(pid)} (pid {pid})"
    command = shlex.join(ours)
    if len(command) > COMMAND_MAX:
        command = f"{command[: COMMAND_MAX - 1]}…"
    return f"'{command}' (pid {pid}){_elsewhere(ours)}"


def described_with_parents(pid: int) -> str | None:
    """Process `pid`, or the command of ours that it works for: the nearest of its ancestors that is one."""
    each = pid
    while each > 1:
        words = _command(each)
        if words and (_ours(words) or _machine(each)):
            return described(each)
        each = _parent(each)
    return described(pid)


def _parent(pid: int) -> int:
    """0 if it is gone."""
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(") ")[2].split()[1])
    return 0


def _ours(words: list[str]) -> list[str]:
    """Our command without its interpreter; nothing if it is not ours."""
    for at, word in enumerate(words):
        if os.path.basename(word) in PROGRAMS or word.endswith(AS_UML):
            return ["uml" if word.endswith(AS_UML) else os.path.basename(word), *words[at + 1 :]]
    return []


def _command(pid: int) -> list[str] | None:
    try:
        text = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return None
    return [os.fsdecode(word) for word in text.rstrip(b"\0").split(b"\0")]


def _name(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
    return "a process"


def _machine(pid: int) -> str | None:
    """The machine that process `pid` looks after: it keeps the lock file of its directory open."""
    with contextlib.suppress(OSError):
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                path = Path(os.readlink(f"/proc/{pid}/fd/{fd}"))
                if path.name == "pid" and path.with_name("machine.toml").exists():
                    return path.parent.name
    return None


# Mounts that others keep ----------------------------------------------------------------------


def _elsewhere(words: list[str]) -> str:
    """What to add of a mount, of the command `words`, that is in another mount namespace only."""
    places = {os.path.realpath(word) for word in words[1:] if os.path.isdir(word)}
    if "mount" not in " ".join(words[:2]) or not places or places & set(_mountpoints("self")):
        return ""
    keeper = next((pid for pid in _namespaces() if places & set(_mountpoints(pid))), None)
    if keeper is None:
        return ""
    return f", whose mount is still there in the mount namespace of {_name(int(keeper))} (pid {keeper})"


def keepers(device: int) -> Iterator[int]:
    """Processes of other mount namespaces, one of each, that have the filesystem with this device number mounted."""
    number = f" {os.major(device)}:{os.minor(device)} "
    for pid in _namespaces():
        with contextlib.suppress(OSError):
            if number in Path(f"/proc/{pid}/mountinfo").read_text(errors="replace"):
                yield int(pid)


def _namespaces() -> Iterator[str]:
    """A process of each mount namespace but ours."""
    seen = {os.readlink("/proc/self/ns/mnt")}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            namespace = os.readlink(f"/proc/{pid}/ns/mnt")
            if namespace not in seen:
                seen.add(namespace)
                yield pid


def _mountpoints(pid: str) -> Iterator[str]:
    """Where process `pid` has mounts of ours."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/mountinfo").read_text(errors="replace").splitlines():
            if f" - {MOUNT} " in line:
                yield line.split()[4].encode().decode("unicode_escape")
