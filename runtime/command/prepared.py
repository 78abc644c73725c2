"""One `uml run`, as its words say, before anything is started."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from runtime.kernels.kernel import find_kernel
from runtime.machine.equipment import HostMount
from runtime.machine.options import Options
from umlfs.sources import Source, as_source

READ_AT_BOOT: Final = ("etc/passwd", "etc/group", "etc/hosts", "etc/resolv.conf", "etc/localtime")
"""Files of the root from which a guest's own are made."""

State = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A command, and the guest that it is to run in."""

    options: Options
    words: Sequence[str]
    directory: str | None
    environment: Mapping[str, str]
    user: str | None
    timeout: float | None
    key: str
    """What the guest is booted with: a command with the same key can run in it."""
    on_terminal: bool
    how: str = ""
    """What streams it has, in the agent's word."""
    warm: float | None = None
    """For how long (seconds) a guest is to stand for the next command; 0: none any more; None: as it is."""
    why_not_warm: str = ""
    """What keeps a guest from standing for the next command; empty if nothing does."""

    def absolute(self) -> Prepared:
        """The same, whatever the working directory will be."""
        mounts = [HostMount(it.place, it.source.absolute(), it.read_only, it.options) for it in self.options.mounts]
        kernel = str(find_kernel(self.options.kernel).path) if self.options.kernel else None
        root = as_source(self.options.root).absolute()
        return replace(self, options=replace(self.options, root=root, mounts=mounts, kernel=kernel))

    def state(self) -> State:
        """What a guest that boots now takes over of this host for good: if that has changed, it is the wrong one."""
        kernel = find_kernel(self.options.kernel).path
        root = as_source(self.options.root).argument
        files = [kernel, *(Path(root, name) for name in READ_AT_BOOT)]
        places = [Path(root), *(Path(as_source(mount.source).argument) for mount in self.options.mounts)]
        return (*map(_content, files), *map(_identity, places))


def key_of(options: Options) -> str:
    """Equal for guests that are booted alike, wherever their caller is."""
    mounts = [(it.place, it.source.absolute().full, it.read_only, it.options) for it in options.mounts]
    root = as_source(options.root).absolute().full
    kernel = find_kernel(options.kernel).path
    rest = (options.kernel_hostfs, options.memory, options.jail, options.execution, options.lock_modules, options.owner)
    return repr((root, mounts, str(kernel), rest))


def why_not_warm(options: Options, *, published: bool) -> str:
    """What of a guest with these options must not lie around. Such are locks that others want, ports and addresses."""
    sources: list[Source] = [as_source(options.root), *(as_source(mount.source) for mount in options.mounts)]
    if options.writable:
        return "--rw"
    if options.ubds:
        return "--ubd"
    if options.networks or published:
        return "--net"
    if options.execution.time_travel:
        return "--time-travel"
    other = next((source for source in sources if source.scheme != "hostfs"), None)
    return f"a source that is no directory ({other})" if other is not None else ""


def _content(path: Path) -> object:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _identity(path: Path) -> object:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, stat.S_IFMT(found.st_mode)
