"""The socket `lines` and `uml console`: several at a line, of whom one types, and terminals left as they were."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import termios
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trio

from runtime.consoles.hostend import KEPT
from runtime.consoles.sharing import CLIENTS_MAX
from runtime.consoles.sharing_wire import Answer, Decoder, Frame, FrameKind, Request, size_frame
from tests.consoles.guest import BOUND, Client, Guest, guest, unix
from tests.ordinary import ROOT


class Viewer(Client):
    """A client that speaks the protocol."""

    def __init__(self, stream: trio.SocketStream) -> None:
        super().__init__(stream)
        self.decoder = Decoder()
        self.notices: list[str] = []

    async def ask(self, request: Request) -> Answer:
        await self.send(request.encode())
        await self.more()
        assert self.decoder.greeting is not None
        return Answer.decode(self.decoder.greeting)

    async def more(self) -> bool:
        with trio.fail_after(BOUND):
            data = await self.stream.receive_some()
        self.decoder.receive(data)
        for frame in self.decoder.frames():
            if frame.kind is FrameKind.NOTICE:
                self.notices.append(frame.content.decode())
            else:
                self.seen += frame.content
        return bool(data)

    async def sees(self, text: bytes) -> None:
        while text not in self.seen:
            assert await self.more(), self.seen
        self.seen = self.seen.partition(text)[2]

    async def type(self, data: bytes) -> None:
        await self.send(Frame(FrameKind.DATA, data).encode())


@contextlib.asynccontextmanager
async def sharing(path: Path, *words: str) -> AsyncIterator[Guest]:
    async with guest(*words) as it, trio.open_nursery() as nursery:
        await nursery.start(it.consoles.sharing().serve, path)
        yield it
        nursery.cancel_scope.cancel()


@contextlib.asynccontextmanager
async def viewer(path: Path) -> AsyncIterator[Viewer]:
    async with unix(path) as client:
        yield Viewer(client.stream)


async def test_one_types_and_the_others_watch(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    async with sharing(path, "con1=pts", "ssl0=null") as it:
        assert path.stat().st_mode & 0o777 == 0o600
        await it.say("con1", b"before ")
        async with viewer(path) as second:
            async with viewer(path) as first:
                assert await first.ask(Request(None, 30, 100)) == Answer("con1", writer=True)
                assert await second.ask(Request("con1", 50, 150)) == Answer("con1", writer=False)
                await it.has_size("con1", 30, 100)
                await it.say("con1", b"hello")
                await first.sees(b"before hello")
                await second.sees(b"before hello")
                await second.type(b"not heard")
                await second.send(size_frame(51, 151).encode())
                await first.type(b"ls\r")
                await it.heard("con1", b"ls\r")
                await first.send(size_frame(31, 101).encode())
                await it.has_size("con1", 31, 101)
            await it.has_size("con1", 51, 151)
            while not second.notices:
                await second.more()
            assert second.notices == ["the one who typed has left: now you do"]
            await second.type(b"now heard")
            await it.heard("con1", b"now heard")


async def test_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lines"
    requests = {
        b'{"line": "con5"}\n': "con5: this machine has no such line",
        b'{"line": "x"}\n': "x: not the name of a line",
        b"GET / HTTP/1.0\r\n": "not the protocol of this socket: not a line of JSON",
        b"x" * 5000: "not the protocol of this socket: the first line has no end",
    }
    async with sharing(path, "con1=null"):
        for request, error in requests.items():
            async with viewer(path) as client:
                await client.send(request)
                assert Answer.decode(await client.end()).error == error
        async with viewer(path) as client:
            await client.ask(Request("con1"))
            await client.send(b"\xff" * 1000)
            assert not await client.more()
        monkeypatch.setattr("runtime.consoles.sharing.is_ours", lambda client: False)
        async with viewer(path) as client:
            assert Answer.decode(await client.end()).error == "the machine belongs to another user"


async def test_clients_are_bounded(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    async with sharing(path), contextlib.AsyncExitStack() as stack:
        for _ in range(CLIENTS_MAX):
            await stack.enter_async_context(unix(path))
        async with viewer(path) as client:
            assert Answer.decode(await client.end()).error == f"the machine has {CLIENTS_MAX} clients already"


async def test_a_watcher_that_reads_nothing_holds_nobody_up(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    async with sharing(path) as it, viewer(path) as client:
        await client.ask(Request("con0"))
        await it.say("con0", b"x" * 3_000_000)
        await it.say("con0", b"the end")
        await client.sees(b"the end")


# uml console ----------------------------------------------------------------------------------


class Program:
    """`uml console` with pipes, or on a terminal."""

    def __init__(self, home: Path, *arguments: str, terminal: bool = False) -> None:
        self.near = self.far = -1
        environment = {"PATH": os.defpath, "HOME": str(home), "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-P", "-c", "from runtime.cli import main; main()", "console", *arguments]
        streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        if terminal:
            self.near, self.far = os.openpty()
            os.set_blocking(self.near, False)
            termios.tcsetwinsize(self.near, (33, 99))
            self.before = termios.tcgetattr(self.far)
            streams = dict.fromkeys(streams, self.far)
            command = ["setsid", "-w", "-c", *command]
        self.process = subprocess.Popen(command, env=environment, **streams)  # type: ignore[call-overload]
        self.shown = b""

    async def see(self, text: bytes) -> None:
        fd = self.near if self.near >= 0 else self.process.stdout.fileno()
        with trio.fail_after(BOUND):
            while text not in self.shown:
                await trio.lowlevel.wait_readable(fd)
                data = os.read(fd, 65536)
                assert data, self.shown
                self.shown += data
        self.shown = self.shown.partition(text)[2]

    async def end(self) -> int:
        with trio.fail_after(BOUND):
            status: int = await trio.to_thread.run_sync(self.process.wait)
        if self.near >= 0:
            assert termios.tcgetattr(self.far) == self.before
        return status

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for fd in (self.near, self.far):
            if fd >= 0:
                trio.lowlevel.notify_closing(fd)
                os.close(fd)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream:
                stream.close()


@contextlib.contextmanager
def program(home: Path, *arguments: str, terminal: bool = False) -> Iterator[Program]:
    it = Program(home, *arguments, terminal=terminal)
    try:
        yield it
    finally:
        it.close()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / ".uml" / "debian").mkdir(parents=True)
    return tmp_path


def lines(home: Path) -> Path:
    return home / ".uml" / "debian" / "lines"


async def test_on_a_terminal(home: Path) -> None:
    async with sharing(lines(home), "con1=null") as it:
        await it.say("con1", b"login: ")
        with program(home, "debian", terminal=True) as console:
            await console.see(b"[con1; Ctrl-] or Enter ~. leaves]")
            await console.see(b"login: ")
            await it.has_size("con1", 33, 99)
            os.write(console.near, b"root\r\x03")
            await it.heard("con1", b"root\r\x03")
            termios.tcsetwinsize(console.near, (40, 120))
            await it.has_size("con1", 40, 120)
            with program(home, "debian", "con1", terminal=True) as other:
                await other.see(b"somebody else types")
                os.write(other.near, b"\r~.")
                await other.see(b"[con1 is left]")
                assert await other.end() == 0
            os.write(console.near, b"x\x1d")
            await it.heard("con1", b"x")
            assert await console.end() == 0


async def test_a_signal_leaves_the_terminal_as_it_was(home: Path) -> None:
    async with sharing(lines(home), "con1=null") as it:
        with program(home, "debian", "con1", "--escape", "^A", terminal=True) as console:
            await console.see(b"Ctrl-A or Enter")
            os.write(console.near, b"\x1d")
            await it.heard("con1", b"\x1d")
            children = Path(f"/proc/{console.process.pid}/task/{console.process.pid}/children").read_text().split()
            os.kill(int(children[0]) if children else console.process.pid, signal.SIGTERM)
            assert await console.end() == 128 + signal.SIGTERM


async def test_the_end_of_the_machine(home: Path) -> None:
    with program(home, "debian", "con1", terminal=True) as console:
        pass
    async with sharing(lines(home), "con1=null") as it:
        console = Program(home, "debian", "con1", terminal=True)
        await it.say("con1", b"going down")
        await console.see(b"going down")
    try:
        await console.see(b"[con1 is left]")
        assert await console.end() == 0
    finally:
        console.close()


async def test_as_a_pipe(home: Path) -> None:
    """Every byte, both ways; the end of the input is not the end of the output."""
    said = os.urandom(5 * KEPT)
    async with sharing(lines(home), "con1=null") as it:
        with program(home, "debian", "con1") as console:
            console.process.stdin.write(b"\x1d~.\r\xff")
            console.process.stdin.close()
            await it.heard("con1", b"\x1d~.\r\xff")
            for start in range(0, len(said), KEPT // 2):  # more than is kept would go by if the reader were slow
                await it.say("con1", said[start : start + KEPT // 2])
                await console.see(said[start : start + KEPT // 2])
            console.process.send_signal(signal.SIGINT)
            assert await console.end() == 128 + signal.SIGINT
            assert console.process.stderr.read() == b""


async def test_when_there_is_no_such_machine(home: Path) -> None:
    (home / ".uml" / "bare").mkdir()
    errors = {
        ("none",): (1, "uml: none: no such machine; 'uml ps' lists the machines that run\n"),
        ("bare",): (1, "uml: bare: the machine shares no lines: it was not started by 'uml boot'; "
                       "its consoles are where its own con= and ssl= put them\n"),
        ("debian", "tty1"): (2, "uml: tty1: not the name of a line; lines are con0 to con15 and ssl0 to ssl63\n"),
        ("debian", "con9"): (1, "uml: con9: this machine has no such line; it has con0\n"),
    }  # fmt: skip
    async with sharing(lines(home)):
        for arguments, (status, text) in errors.items():
            with program(home, *arguments) as console:
                assert await console.end() == status
                assert console.process.stderr.read().decode() == text
    with program(home, "debian") as console:
        assert await console.end() == 1
        assert console.process.stderr.read().startswith(b"uml: debian: the machine shares no lines")
