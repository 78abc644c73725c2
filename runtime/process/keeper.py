"""Nothing of a machine survives us, not even when we are killed by SIGKILL.

A kernel does not end with the process that started it. So a small process, the keeper, stands by: it holds the
read end of a pipe whose only write end is ours. When that end closes without a word, we are dead: the keeper
kills the kernels that it knows of and removes the directory with their sockets.

There is no moment without guard. The directory gets its name before it is made, and a kernel is started by way
of a shell that tells the keeper its number and then becomes the kernel: until it has told, it holds the pipe
open itself.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Final, NamedTuple, Protocol

import trio

from runtime.process.kernel_process import AdoptedProcess, KernelProcess
from runtime.process.open_files import callers_limit
from runtime.process.processes import MARK, LivenessPipe, fixed_addresses, kill_group, kill_marked
from umlfs.errors import UmlError

SHELL: Final = "/bin/sh"

# Words on the pipe: `add PID` for a kernel to be killed at the end, `drop PID` for one that has ended (its number
# may soon be another's), `group PATH` for a control group to be removed at the end, `done` when nothing is left to
# do. The keeper lives in a session of its own, so no terminal ends it; ignoring the rest lets it outlive a shutdown
# that first asks all processes to end.
_KEEP: Final = """\
trap '' HUP INT QUIT TERM
pids=
group=
while read -r word pid; do
    case $word in
        add) pids="$pids $pid" ;;
        drop)
            left=
            for known in $pids; do
                [ "$known" = "$pid" ] || left="$left $known"
            done
            pids=$left
            ;;
        group) group=$pid ;;
        done) exit 0 ;;
    esac
done
for pid in $pids; do
    kill -s KILL -- "-$pid" || kill -s KILL "$pid"
done
grep -lsF "$2=$1" /proc/[0-9]*/environ | while IFS=/ read -r root proc pid rest; do
    kill -s KILL "$pid"
done
rm -rf -- "$1"
[ -z "$3" ] || rm -rf -- "$3"
for try in 1 2 3 4 5 6 7 8 9; do
    [ -d "$group" ] || break
    rmdir -- "$group" || sleep 0.1
done
"""

_LAUNCH: Final = """\
echo "add $$"
ulimit -Sn "$1"
shift
exec "$@" >&2
"""

_PATH_MAX: Final = 60
"""Bytes of the directory's parent: a socket's path is limited to 107, the kernel adds umid and name."""

END_TIMEOUT: Final = 5.0
"""Seconds that a killed kernel, or the keeper itself, gets to be gone."""

GROUP_TIMEOUT: Final = 0.02
"""Seconds that a killed group gets before others are looked for: helpers that are no part of it."""


class Started(NamedTuple):
    """What a launcher has started: children of this process."""

    kernel: int
    """0 if there is none."""
    first: int = 0
    """Process 1 of the kernel's own namespace, with which all of the kernel's processes end; 0 if it has none."""
    failure: UmlError | None = None
    """Why the kernel does not run after all: what there is of it is to be ended."""


class Launcher(Protocol):
    """What puts a kernel somewhere before it runs."""

    @property
    def descriptors(self) -> Sequence[int]:
        """What its own process inherits, besides what the kernel does."""

    def command(self, kernel: Sequence[str]) -> list[str]:
        """The command that becomes, or starts, the command `kernel`. It tells the keeper, by its standard output, of
        each process that is to be killed at the end."""

    def started(self, launcher: subprocess.Popen[bytes]) -> Started:
        """Wait until the kernel runs, or is sure not to."""


class _Bonds(NamedTuple):
    """What holds a kernel's processes together."""

    liveness: LivenessPipe
    mark: str
    first: KernelProcess | None = None
    """Process 1 of the kernel's namespace."""


class Keeper:
    """A directory for a machine's sockets, and the kernels that must not outlive this process.

    A context manager: on entry the directory is there, empty and for this user alone; on exit kernels still
    running are killed, all are reaped, and the directory is gone. Its parent is `$XDG_RUNTIME_DIR` where that is
    of use, else /tmp.

    Both ends block for some milliseconds.
    """

    directory: Path
    memory: Path | None
    """Likewise a directory for the file of a guest's memory, if one was asked for."""

    def __init__(self, parent: Path | None = None, memory: Path | None = None) -> None:
        """The directory is made in `parent`, and one for memory in `memory`."""
        self.directory = (parent or _default_parent()) / f"umlfs-{os.urandom(6).hex()}"
        self.memory = memory / f"{self.directory.name}.memory" if memory else None
        self._kernels: dict[KernelProcess, _Bonds] = {}
        """Those that are not reaped."""
        self._started = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe = -1
        _keepers.add(self)

    def __enter__(self) -> Keeper:
        reader, self._pipe = os.pipe()
        try:
            self._process = _start(reader, self.directory, self.memory)
            for path in filter(None, (self.directory, self.memory)):
                path.mkdir(mode=0o700)
        except OSError as error:
            self.close()
            raise UmlError(f"{self.directory}: cannot be made ready: {error.strerror}") from error
        finally:
            os.close(reader)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def spawn(
        self,
        arguments: Sequence[str | os.PathLike[str]],
        *,
        stdin: int | IO[bytes] = subprocess.DEVNULL,
        output: int | IO[bytes] | None = None,
        pass_fds: Sequence[int] = (),
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        makes_group: bool = True,
    ) -> subprocess.Popen[bytes]:
        """Start a kernel; `arguments` begins with its path.

        Its descriptors 1 and 2 are both `output` (`subprocess.PIPE`: the pipe is the result's `stderr`), and
        those of `pass_fds` keep their numbers. It may have as many files open as this process might before
        `raise_limit`. A program that does not make a group of its own, as a kernel does, is given one, and random
        addresses. The process number is the kernel's own. UmlError if it cannot be started. Wait for its end by `wait`.
        """
        command = [SHELL, "-c", _LAUNCH, SHELL, callers_limit(), *(os.fspath(word) for word in arguments)]
        kernel, bonds = self._popen(command, stdin, output, pass_fds, env, cwd, makes_group)
        self._kernels[kernel] = bonds
        return kernel

    def launch(
        self,
        launcher: Launcher,
        arguments: Sequence[str | os.PathLike[str]],
        *,
        output: int | IO[bytes] | None = None,
        pass_fds: Sequence[int] = (),
        env: Mapping[str, str] | None = None,
    ) -> KernelProcess:
        """As `spawn`, by way of `launcher`; returns when the kernel runs, some milliseconds later."""
        command = launcher.command([os.fspath(word) for word in arguments])
        inherited = [*pass_fds, *launcher.descriptors]
        process, bonds = self._popen(command, subprocess.DEVNULL, output, inherited, env, Path("/"), True)
        self._kernels[process] = bonds
        started = launcher.started(process)
        kernel = self._adopt(started, process) if started.first else process
        if started.failure is not None:
            if kernel.stderr is not None:
                kernel.stderr.close()
            self._end(kernel)
            raise started.failure
        return kernel

    def _adopt(self, started: Started, launcher: subprocess.Popen[bytes]) -> KernelProcess:
        """The launcher is done: what counts is what it has started."""
        bonds = self._kernels.pop(launcher)
        launcher.wait()
        first = AdoptedProcess(started.first)
        kernel = AdoptedProcess(started.kernel, launcher.stderr) if started.kernel else first
        self._kernels[kernel] = _Bonds(bonds.liveness, bonds.mark, first)
        return kernel

    def _popen(
        self,
        command: Sequence[str],
        stdin: int | IO[bytes],
        output: int | IO[bytes] | None,
        pass_fds: Sequence[int],
        env: Mapping[str, str] | None,
        cwd: Path | None,
        makes_group: bool,
    ) -> tuple[subprocess.Popen[bytes], _Bonds]:
        self._started += 1
        liveness, mark = LivenessPipe(), f"{self.directory}/{self._started}"
        try:
            with fixed_addresses() if makes_group else contextlib.nullcontext():
                process = subprocess.Popen(
                    command,
                    stdin=stdin,
                    stdout=self._pipe,
                    stderr=output,
                    pass_fds=[*pass_fds, liveness.held],
                    env={**(os.environ if env is None else env), MARK: mark},
                    cwd=cwd,
                    process_group=None if makes_group else 0,
                )
        except OSError as error:
            liveness.close()
            raise UmlError(f"{command[0]}: cannot be started: {error.strerror}") from error
        finally:
            liveness.hand_over()
        return process, _Bonds(liveness, mark)

    def note_group(self, path: Path) -> None:
        """The control group at `path` is to be removed if this process is killed; else that is the caller's to do."""
        self._tell(b"group %s\n" % os.fsencode(path))

    async def wait(self, kernel: KernelProcess) -> int:
        """Wait until the kernel ends, end what it left running, and reap it: its `returncode`.

        Cancellation leaves it running.
        """
        if kernel in self._kernels:
            pidfd = os.pidfd_open(kernel.pid)
            try:
                await trio.lowlevel.wait_readable(pidfd)
            finally:
                os.close(pidfd)
            self._end(kernel)
        return kernel.wait()  # It is reaped: this does not wait.

    def _end(self, kernel: KernelProcess) -> None:
        """End all processes of the kernel and reap it. Until then its number is its own, so what goes by the
        number comes first."""
        bonds = self._kernels.pop(kernel, None)
        if bonds is None:
            return
        if bonds.first is not None:
            os.kill(bonds.first.pid, signal.SIGKILL)
        if not bonds.liveness.is_free():
            kill_group(kernel.pid)
            if not bonds.liveness.is_free(GROUP_TIMEOUT):
                kill_marked(bonds.mark)
                bonds.liveness.is_free(END_TIMEOUT)
        bonds.liveness.close()
        self._tell(b"drop %d\n" % kernel.pid)
        with contextlib.suppress(subprocess.TimeoutExpired):
            kernel.wait(END_TIMEOUT)
            if bonds.first is not None:  # it waits for the kernel to be reaped
                self._tell(b"drop %d\n" % bonds.first.pid)
                bonds.first.wait(END_TIMEOUT)

    @property
    def closed(self) -> bool:
        """Whether all is over: what is started now would be nobody's."""
        return self._pipe < 0

    def _tell(self, line: bytes) -> None:
        with contextlib.suppress(BrokenPipeError):
            os.write(self._pipe, line)

    def leave_to_parent(self) -> None:
        """This process was forked from the one whose kernels these are: it must neither end them nor keep them."""
        self._kernels.clear()
        self.directory = self.memory = None  # type: ignore[assignment]
        if self._pipe >= 0:
            os.close(self._pipe)
        self._pipe, self._process = -1, None

    def close(self) -> None:
        """End the kernels, remove the directory, let the keeper go. To be called once or more."""
        for kernel in list(self._kernels):
            self._end(kernel)
        for path in filter(None, (self.directory, self.memory)):
            shutil.rmtree(path, ignore_errors=True)
        if self._pipe >= 0:
            self._tell(b"done\n")
            os.close(self._pipe)
            self._pipe = -1
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(END_TIMEOUT)
            self._process = None


_keepers: weakref.WeakSet[Keeper] = weakref.WeakSet()
"""Those of this process."""


def _forked() -> None:
    for keeper in list(_keepers):
        keeper.leave_to_parent()


os.register_at_fork(after_in_child=_forked)


def _start(reader: int, directory: Path, memory: Path | None) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [SHELL, "-c", _KEEP, SHELL, directory, MARK, memory or ""],
        stdin=reader,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env={"PATH": "/usr/bin:/bin"},
        start_new_session=True,
    )


def _default_parent() -> Path:
    named = Path(os.environ.get("XDG_RUNTIME_DIR", ""))
    with contextlib.suppress(OSError):
        if named.is_absolute() and named.stat().st_uid == os.geteuid() and os.access(named, os.W_OK | os.X_OK):
            # The kernel's command line knows no quoting, and ends a socket's path at a colon.
            speakable = not any(character.isspace() or character == ":" for character in str(named))
            if speakable and len(os.fsencode(named)) <= _PATH_MAX:
                return named
    return Path("/tmp")
