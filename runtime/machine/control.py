"""The control filesystem: how a guest's agent talks to the machine it runs in.

It is a virtio-fs device like any other. Its files are streams: the agent reads its next job from `next`, and
for each job there is a directory with the job's `script`, `stdin`, `stdout`, `stderr`, `signals` and `status`.
Bytes go between the command's pipes in the guest and descriptors of the host without a copy in between.

    next           read   a line for each job: its number and its terminal, or its number and what it has for input,
                          output and errors: `pipe`, `null`, or `output` for errors that go where the output goes
    report         write  what went wrong at boot, in words
    changes        read   a change for the announcer, where there is one (`announcing.py`)
    announced      write  a byte for each change that it has tried to announce
    interrupted    write  threads that wait for a lock and have a signal to take, a line each (`lock_signals.py`)
    N/script       read   the shell script that becomes the command; of a job that is staged, once there is one
    N/program      read   an executable for it, of a job that has one
    N/stdin        read   the command's input until its end
    N/stdout       write  its output; N/stderr likewise
    N/signals      read   names of signals for the command, a line each; end of file when the job is over
    N/status       write  "exit STATUS" or "failed STATUS WHY"
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import stat
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

import trio

from umlfs.buffers import scatter
from umlfs.errors import UmlError
from umlfs.filesystem import ROOT, Attr, DirSink, Entry, Filesystem, Opened, StatFs

REPORT_MAX: Final = 4096
"""Bytes of words that the agent may say in `report` and `status`: a hostile guest must not fill our memory."""
LIFETIME_NS: Final = 10**18
NO_STREAMS: Final = "null null null"
"""What the agent is told of a job that it is to give no streams."""


class InputStream(Protocol):
    """Where a command's input comes from."""

    async def read_into(self, buffers: Sequence[memoryview]) -> int:
        """Wait for input and fill `buffers` as far as it goes; 0 at the end."""


class OutputStream(Protocol):
    """Where a command's output goes."""

    async def write_from(self, buffers: Sequence[memoryview]) -> int:
        """Wait for room and write all of `buffers`. BrokenPipeError when nobody reads any more."""


_Pull = Callable[[Sequence[memoryview]], Awaitable[int]]


def streams_word(stdin: object, stdout: object, stderr: object) -> str:
    """What the agent is told of streams; None for one that is not there."""
    kinds = ["pipe" if stream is not None else "null" for stream in (stdin, stdout, stderr)]
    if stdout is not None and stdout is stderr:
        kinds[2] = "output"
    return " ".join(kinds)


@dataclass(slots=True, eq=False)
class Job:
    """One command in the guest, from the request to its exit status."""

    stdin: InputStream | None = None
    stdout: OutputStream | None = None
    stderr: OutputStream | None = None
    number: int = 0
    returncode: int | None = None
    """The exit status, 128 + N after signal N; None while the command runs or if it failed to start."""
    failure: UmlError | None = None
    """Why the command could not be run, or has no exit status."""
    _trouble: UmlError | None = None
    """What went wrong with a stream on the host's side."""
    _waits: set[trio.CancelScope] = field(default_factory=set)
    """For input: it ends when the job does."""
    _writes: set[trio.CancelScope] = field(default_factory=set)
    """For room in an output."""
    _done: trio.Event = field(default_factory=trio.Event)
    _begun: trio.Event = field(default_factory=trio.Event)
    """It has its streams and its script."""
    _script: bytes = b""
    """What the guest has not read yet, of a job that was staged."""
    asked: trio.Event = field(default_factory=trio.Event)
    """The guest has a shell that waits for the script of this job, which was staged."""
    _signals: tuple[trio.MemorySendChannel[bytes], trio.MemoryReceiveChannel[bytes]] = field(
        default_factory=lambda: trio.open_memory_channel[bytes](16)
    )

    def signal(self, name: str) -> None:
        """Send a signal (`INT`, `TERM`…) to the command's process group. Nothing if the job is over."""
        with contextlib.suppress(trio.WouldBlock, trio.ClosedResourceError, trio.BrokenResourceError):
            self._signals[0].send_nowait(name.encode() + b"\n")

    async def wait(self) -> int:
        """Wait for the command's exit status. UmlError if it could not be run, if a stream failed on the host's
        side (a full disk; not a reader that went away), or if the machine died."""
        await self._done.wait()
        if self.failure is not None:
            raise self.failure
        assert self.returncode is not None
        return self.returncode

    async def ended(self) -> None:
        """Wait until the job is over, however it ended."""
        await self._done.wait()

    @property
    def over(self) -> bool:
        return self._done.is_set()

    @property
    def streams(self) -> str:
        """What the agent is told of the streams. Output and errors that go to the same sink go through one pipe, so
        that they come in the order in which they were written."""
        return streams_word(self.stdin, self.stdout, self.stderr)

    def finish(self, *, returncode: int | None = None, failure: UmlError | None = None) -> None:
        """The command ended with `returncode`, or could not be run because of `failure`. The first word counts."""
        if not self._done.is_set():
            self.returncode, self.failure = returncode, failure or self._trouble
            self._done.set()
            self._end_input()

    def hang_up(self) -> None:
        """The guest's kernel is about to end, and waits for an answer to all that it asked."""
        self._end_input()
        for scope in self._writes:
            scope.cancel()

    def _end_input(self) -> None:
        self._signals[0].close()
        for scope in self._waits:
            scope.cancel()

    def begin(self, script: bytes = b"") -> None:
        """A job that was staged has its streams now, and becomes what `script` says; nothing if that is empty."""
        self._script = script
        self._begun.set()

    async def _pull(self, buffers: Sequence[memoryview]) -> int:
        """Input for as long as the job runs: its end of file comes at the latest when the job is over."""
        count = 0
        with self._waiting():
            await self._begun.wait()
            if self.stdin is not None:
                with self._watching("standard input", "the command could not read all of it"):
                    count = await self.stdin.read_into(buffers)
        return count

    async def _pull_script(self, buffers: Sequence[memoryview]) -> int:
        self.asked.set()
        with self._waiting():
            await self._begun.wait()
        done = scatter(self._script, buffers)
        self._script = self._script[done:]
        return done

    @contextlib.contextmanager
    def _waiting(self) -> Iterator[None]:
        """Whatever waits in here does so for as long as the job runs."""
        with trio.CancelScope() as scope:
            self._waits.add(scope)
            if self.over:
                scope.cancel()
            try:
                yield
            finally:
                self._waits.discard(scope)

    def _push(self, name: str, stream: Literal["stdout", "stderr"]) -> _Pull:
        """What takes the output called `name`."""

        async def push(buffers: Sequence[memoryview]) -> int:
            sink: OutputStream | None = getattr(self, stream)
            if sink is None:
                return sum(map(len, buffers))
            with trio.CancelScope() as scope, self._watching(name, "not all that the command said is kept"):
                self._writes.add(scope)
                try:
                    return await sink.write_from(buffers)
                finally:
                    self._writes.discard(scope)
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        return push

    @contextlib.contextmanager
    def _watching(self, name: str, consequence: str) -> Iterator[None]:
        """Remember the first error of a stream on the host. The guest sees it too, but says nothing of it."""
        try:
            yield
        except BrokenPipeError:
            raise
        except OSError as error:
            self._trouble = self._trouble or UmlError(f"{name}: {os.strerror(error.errno or 0)}", consequence)
            raise


@dataclass(slots=True)
class _Node:
    """A file: its contents, or where they come from and go to."""

    mode: int
    content: bytes = b""
    pull: _Pull | None = None
    push: _Pull | None = None
    children: dict[bytes, int] = field(default_factory=dict)


class _Lines:
    """A stream of messages, read as far as the reader's buffers go."""

    def __init__(self, channel: trio.MemoryReceiveChannel[bytes]) -> None:
        self._channel = channel
        self._rest = b""

    async def read_into(self, buffers: Sequence[memoryview]) -> int:
        if not self._rest:
            try:
                self._rest = await self._channel.receive()
            except trio.EndOfChannel:
                return 0
        done = scatter(self._rest, buffers)
        self._rest = self._rest[done:]
        return done


def _failure(answer: str) -> UmlError:
    """Why a job could not be run, as the agent tells it: a status and words."""
    status, _, why = answer.partition(" ")
    if not (status.isascii() and status.isdigit()):
        return UmlError(answer or "the guest's agent gave no reason")
    return UmlError(why or "the guest's agent gave no reason", status=int(status) & 0xFF or 1)


class ControlFilesystem(Filesystem):
    """The agent's end of a machine. Jobs go in with `submit`; the agent does the rest."""

    def __init__(self) -> None:
        self.ready = trio.Event()
        """The agent asked for its first job: the guest is up."""
        self.report = b""
        """What the agent had to say when the boot failed."""
        self.reported = trio.Event()
        self._jobs: dict[int, Job] = {}
        self._count = 0
        self._closed = False
        """No more jobs are taken."""
        self._queue, waiting = trio.open_memory_channel[bytes](math.inf)
        self._waiting = _Lines(waiting)
        self._nodes: dict[int, _Node] = {
            ROOT: _Node(stat.S_IFDIR | 0o500, children={b"next": 2, b"report": 3}),
            2: _Node(stat.S_IFREG | 0o400, pull=self._next),
            3: _Node(stat.S_IFREG | 0o200, push=self._take_report),
        }
        self._last_node = 3
        self._ending: list[Callable[[], None]] = []
        """What ends the input of further files."""

    def offer(
        self, name: bytes, *, pull: _Pull | None = None, push: _Pull | None = None, end: Callable[[], None]
    ) -> None:
        """One more file, to be read or written as a stream; `end` has nobody wait for it any more."""
        mode = stat.S_IFREG | (0o400 if pull else 0o200)
        self._nodes[ROOT].children[name] = self._add(_Node(mode, pull=pull, push=push))
        self._ending.append(end)

    @property
    def next_number(self) -> int:
        """The number of the job that is submitted next."""
        return self._count + 1

    def submit(self, job: Job, script: bytes, terminal: str = "", program: bytes | None = None) -> None:
        """Give `job` to the agent, which runs jobs in the order they come: its shell runs `script` to become the
        command, on the guest's device `terminal` or else with pipes. One that brings its `program` gets no pipes: it
        opens its streams here by itself. Once the guest is ending it fails."""
        job.begin()
        self._submit(job, _Node(stat.S_IFREG | 0o400, content=script), terminal or job.streams, program)

    def stage(self, job: Job, how: str) -> None:
        """Have the agent make all ready for a job whose script and streams come later (`Job.begin`). `how` is the
        guest's device, or the word for the streams that the job will have then (`streams_word`)."""
        self._submit(job, _Node(stat.S_IFREG | 0o400, pull=job._pull_script), how, None)

    def _submit(self, job: Job, script: _Node, how: str, program: bytes | None) -> None:
        if self._closed:
            job.finish(failure=UmlError("the guest is ending"))
            return
        self._count += 1
        job.number = self._count
        self._jobs[job.number] = job
        children = {
            b"script": script,
            b"stdin": _Node(stat.S_IFREG | 0o400, pull=job._pull),
            b"stdout": _Node(stat.S_IFREG | 0o200, push=job._push("standard output", "stdout")),
            b"stderr": _Node(stat.S_IFREG | 0o200, push=job._push("standard error", "stderr")),
            b"signals": _Node(stat.S_IFREG | 0o400, pull=_Lines(job._signals[1]).read_into),
            b"status": _Node(stat.S_IFREG | 0o200, push=self._status(job)),
        }
        if program is not None:
            children[b"program"] = _Node(stat.S_IFREG | 0o500, content=program)
        directory = _Node(stat.S_IFDIR | 0o500)
        for name, node in children.items():
            directory.children[name] = self._add(node)
        self._nodes[ROOT].children[str(job.number).encode()] = self._add(directory)
        self._queue.send_nowait(f"{job.number} {how if program is None else NO_STREAMS}\n".encode())

    def retire(self, job: Job) -> None:
        """Forget a job that is over."""
        self._jobs.pop(job.number, None)
        number = self._nodes[ROOT].children.pop(str(job.number).encode(), None)
        if number is not None:
            for child in self._nodes.pop(number).children.values():
                del self._nodes[child]

    def signal_one(self, name: str) -> bool:
        """Tell one of the jobs that are not over something by the way of its signals; False if there is none."""
        for job in self._jobs.values():
            if not job.over:
                job.signal(name)
                return True
        return False

    def signal_all(self, name: str) -> None:
        """Tell every job something by the way of its signals."""
        for job in self._jobs.values():
            job.signal(name)

    async def settle(self) -> None:
        """No more jobs come: wait until the guest has let go of its filesystems."""
        self._close()
        await self.reported.wait()

    def hang_up(self) -> None:
        """The guest's kernel is about to end: it waits for what it asked, so nothing may wait for anything else."""
        self._close()
        for job in self._jobs.values():
            job.hang_up()

    def _close(self) -> None:
        """No more jobs are taken."""
        self._closed = True
        self._queue.close()
        for end in self._ending:
            end()

    def stop(self, why: UmlError) -> None:
        """The guest is gone: whoever waits for a job hears `why`."""
        for job in self._jobs.values():
            job.finish(failure=why)

    def _add(self, node: _Node) -> int:
        self._last_node += 1
        self._nodes[self._last_node] = node
        return self._last_node

    # Streams ----------------------------------------------------------------------------------

    async def _next(self, buffers: Sequence[memoryview]) -> int:
        self.ready.set()
        return await self._waiting.read_into(buffers)

    async def _take_report(self, buffers: Sequence[memoryview]) -> int:
        text = b"".join(buffers)
        self.report = (self.report + text)[:REPORT_MAX]
        self.reported.set()
        return len(text)

    @staticmethod
    def _status(job: Job) -> _Pull:
        async def push(buffers: Sequence[memoryview]) -> int:
            text = b"".join(buffers)
            word, _, rest = text[:REPORT_MAX].decode(errors="replace").strip().partition(" ")
            if word == "exit" and rest.isdigit():
                job.finish(returncode=int(rest) & 0xFF)
            else:
                job.finish(failure=_failure(rest))
            return len(text)

        return push

    # The Filesystem contract ------------------------------------------------------------------

    def _node(self, ino: int) -> _Node:
        try:
            return self._nodes[ino]
        except KeyError:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE)) from None

    def _attr(self, ino: int) -> Attr:
        node = self._node(ino)
        return Attr(ino, node.mode, 1, 0, 0, 0, len(node.content), 0, 0, 0, 0)

    async def lookup(self, parent: int, name: bytes) -> Entry:
        ino = self._node(parent).children.get(name)
        if ino is None:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        return Entry(ino, self._attr(ino), LIFETIME_NS, LIFETIME_NS)

    async def getattr(self, ino: int, handle: int = 0) -> tuple[Attr, int]:
        return self._attr(ino), LIFETIME_NS

    async def setattr(self, ino: int, *_: object) -> tuple[Attr, int]:
        # A shell that opens a stream for writing truncates it.
        return self._attr(ino), LIFETIME_NS

    async def open(self, ino: int, flags: int) -> Opened:
        streaming = self._node(ino).pull is not None or self._node(ino).push is not None
        return Opened(handle=ino, direct=streaming, stream=streaming)

    async def release(self, ino: int, handle: int) -> None:
        pass

    async def read_into(self, ino: int, handle: int, offset: int, buffers: Sequence[memoryview]) -> int:
        node = self._node(ino)
        if node.pull is not None:
            return await node.pull(buffers)
        return scatter(memoryview(node.content)[offset:], buffers)

    async def write_from(
        self, ino: int, handle: int, offset: int, buffers: Sequence[memoryview], kill_set_id: bool = False
    ) -> int:
        node = self._node(ino)
        if node.push is None:
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        return await node.push(buffers)

    async def opendir(self, ino: int) -> Opened:
        return Opened(handle=ino)

    async def releasedir(self, ino: int, handle: int) -> None:
        pass

    async def readdir(self, ino: int, handle: int, offset: int, add: DirSink, plus: bool = False) -> None:
        for position, (name, child) in enumerate(self._node(ino).children.items(), 1):
            if position > offset and not add(name, position, child, self._nodes[child].mode, None):
                return

    async def statfs(self, ino: int = ROOT) -> StatFs:
        return StatFs()
