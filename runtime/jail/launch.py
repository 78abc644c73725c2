"""Starting a kernel in its jail."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Sequence
from functools import cache as memoized
from pathlib import Path
from typing import Final

from runtime.host.compiled import compiled, install, installed
from runtime.jail import report, roots, seccomp, users
from runtime.jail.cgroup import Group, NoGroupError
from runtime.jail.grants import OWN, Grants
from runtime.jail.layers import Layer, Layers, Mode
from runtime.jail.libraries import libraries
from runtime.jail.missing import missing
from runtime.jail.plan import EMPTY, Plan
from runtime.jail.users import User, kept_from, may_become_another, unused
from runtime.process.keeper import Started
from runtime.process.open_files import callers_limit
from umlfs.errors import UmlError

SOURCE: Final = Path(__file__).with_name("launcher.c")
NAME: Final = "jail"
WHAT: Final = "the launcher of jailed kernels"
SHUT: Final = "only its owner may open"
FILES_MAX: Final = 1 << 20
"""Descriptors where the caller has no limit."""


def launcher() -> int:
    """A descriptor of the launcher, an executable; the caller closes it. UmlError if there is none and it cannot be
    compiled. Blocks, half a second the first time."""
    fd = installed(NAME, [SOURCE])
    return _in_memory(NAME, _compiled_once(SOURCE)) if fd is None else fd


@memoized
def _compiled_once(source: Path) -> bytes:
    """A process without a cache directory compiles it once, too."""
    try:
        return compiled(NAME, [source], WHAT)
    except UmlError as error:
        way_out = f"{error.way_out}, or use --jail=off, which keeps nothing from the guest"
        raise UmlError(error.what, way_out, details=error.details) from None


def _in_memory(name: str, content: bytes) -> int:
    """A descriptor of a file in memory that holds `content`; the caller closes it."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    with open(fd, "wb", closefd=False) as file:
        file.write(content)
    return fd


def install_launcher() -> None:
    """Compile it for all users of this installation: no compiler is needed any more. UmlError, OSError."""
    install(NAME, [SOURCE], WHAT)


def _shows_files() -> bool:
    """Whether root shows a kernel what lies in directories of its own. Most kernels do not: only then it is asked."""
    return users.shows_files() and (not roots.may_be_forbidden() or _replaces_roots())


@memoized
def _replaces_roots() -> bool:
    program = launcher()
    try:
        return roots.can_be_replaced(program)
    finally:
        os.close(program)


class Launch:
    """Starts one kernel in a jail: a `runtime.process.keeper.Launcher`, and a context manager around its use."""

    def __init__(
        self,
        mode: Mode,
        kernel: Path,
        version: str,
        *,
        directory: Path,
        memory: int,
        memory_directory: Path,
        memory_on_disk: bool,
        grants: Grants,
        tells: bool = False,
        group: str = "",
    ) -> None:
        """The kernel's file and version, and its machine's directories, see `plan.Plan`. UmlError where the host lacks
        what no jail can be without. `group` is a name for a control group of its own; without one it gets none."""
        self.mode = mode
        self.layers = Layers(mode)
        self.directory = -1
        """A descriptor of the machine's directory `OWN`, as the kernel sees it: there are its socket and pid file. The
        caller closes it."""
        self.refusals = -1
        """With `tells`, a descriptor for `refusals.hear`, which closes it; -1 where the host has none."""
        self._tells = tells
        self._kernel = kernel
        self._version = version
        self._memory = memory
        self._paths = (directory, memory_directory)
        self._memory_on_disk = memory_on_disk
        self._grants = grants
        self._programs = list(dict.fromkeys(_with_libraries([kernel, *grants.execute])))
        self._absent: dict[Layer, str] = missing()
        self.group: Group | None = None
        """Whoever ends the machine's processes then removes it."""
        self.user = self._choose_user()
        self.layers = Layers(mode, (), self._absent)
        if mode is Mode.STRICT and self.layers.lacking:
            raise self._too_weak()
        self._files: list[int] = []
        self._entrance = self._join(group) if group else -1

    def __enter__(self) -> Launch:
        self._program = self._kept(launcher())
        self._near, self._far = socket.socketpair()
        self._filter = self._kept(_in_memory("filter", self._rules())) if self._is_filtered else -1
        return self

    def __exit__(self, *_: object) -> None:
        for fd in self._files:
            os.close(fd)
        self._near.close()
        self._far.close()

    @property
    def _is_filtered(self) -> bool:
        """Whether it gets a filter of system calls: that is one for kernels."""
        return seccomp.is_known() and not self._grants.speaks

    def _rules(self) -> bytes:
        return seccomp.program(seccomp.unused_by(self._version), tells=self._tells)

    def _kept(self, fd: int) -> int:
        """The descriptor, which is closed in the end."""
        self._files.append(fd)
        return fd

    def _join(self, name: str) -> int:
        """A descriptor by which the launcher joins a new control group; -1 if there can be none."""
        try:
            self.group = Group.make(name, self._memory)
        except NoGroupError as error:
            self._absent[Layer.CGROUP] = str(error)
            return -1
        return self._kept(self.group.entrance())

    def _choose_user(self) -> User:
        """Who the kernel is to be: not root, unless it must open what is root's alone."""
        caller = User.caller()
        if caller.uid:
            return caller
        why, found = self._grants.keep_user or self._unusable(), unused()
        if not may_become_another():
            why = "this process has no capability to become another user"
        elif found is None:
            why = "the user namespace of this process has no other users"
        if found is not None and not why:
            return found
        self._absent[Layer.USER] = why
        return caller

    def _unusable(self) -> str:
        """Why somebody who owns nothing could not use what is given."""
        it = self._grants
        wanted = (
            ([self._kernel, *it.execute], 5),
            (self._programs, 4),
            (it.read, 4),
            (it.sockets, 2),
            ([*it.write, *it.devices], 6),
        )
        shut = next(filter(None, (kept_from(paths, bits, _shows_files) for paths, bits in wanted)), None)
        return f"{SHUT} {shut}" if shut else ""

    def prepare(self) -> None:
        """Make the places that the kernel needs in its directory, and have it reach its sockets. OSError."""
        directory, memory = self._paths
        for name in (OWN, EMPTY):
            (directory / name).mkdir(mode=0o700)
        if self.user == User.caller():
            return
        os.chown(directory, -1, self.user.gid)
        os.chmod(directory, 0o710)
        for path in (directory / OWN, memory):
            os.chown(path, self.user.uid, self.user.gid)
        with os.scandir(directory) as entries:
            for entry in entries:
                if not entry.is_dir(follow_symlinks=False):
                    os.chown(entry.path, self.user.uid, self.user.gid, follow_symlinks=False)

    # As a launcher of the keeper's ------------------------------------------------------------

    @property
    def descriptors(self) -> Sequence[int]:
        """What the launcher inherits."""
        return [*self._files, *self._grants.network, self._far.fileno()]

    def command(self, kernel: Sequence[str]) -> list[str]:
        """The launcher with all its steps."""
        directory, memory = self._paths
        soft = callers_limit()
        plan = Plan(
            directory=directory,
            memory=self._memory,
            memory_directory=memory,
            memory_on_disk=self._memory_on_disk,
            programs=self._programs,
            grants=self._grants,
            user=self.user,
            files=int(soft) if soft.isdigit() else FILES_MAX,
            seccomp=self._filter,
            entrance=self._entrance,
            tells=self._tells,
        )
        strict = "1" if self.mode is Mode.STRICT else "0"
        words = [f"/proc/self/fd/{self._program}", str(self._far.fileno()), strict, "close", str(self._program)]
        return [*words, *plan.steps(), "--", *kernel]

    def started(self, launcher: subprocess.Popen[bytes]) -> Started:
        """As of `Launcher`; then `layers` tells what the jail has."""
        self._far.close()
        found = report.read(self._near)
        self.directory, self.refusals = found.directory, found.refusals
        absent = {**self._absent, **found.absent}
        present = tuple(layer for layer in found.present if layer not in absent)
        self.layers = Layers(self.mode, present, absent)
        return Started(found.kernel, found.first, self._failure(found))

    def _failure(self, found: report.JailReport) -> UmlError | None:
        if found.kernel and not found.failure:
            return None
        self._close_descriptors()
        if self.mode is Mode.STRICT and self.layers.lacking:
            return self._too_weak()
        why = found.failure or "its launcher ended without a word"
        return UmlError(f"{self._kernel}: cannot be started in its jail: {why}", "try it with --jail=off")

    def _too_weak(self) -> UmlError:
        layer, why = next(iter(self.layers.lacking.items()))
        what = "let others open it" if SHUT in why else "see `uml doctor`"
        return UmlError(f"--jail=strict: no {layer}: {why}", f"{what}, or use --jail=auto")

    def _close_descriptors(self) -> None:
        for fd in (self.directory, self.refusals):
            if fd >= 0:
                os.close(fd)
        self.directory = self.refusals = -1


def _with_libraries(programs: Sequence[Path]) -> list[Path]:
    return [path for program in programs for path in (program, *libraries(program))]
