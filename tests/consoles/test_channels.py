"""Every channel: what goes in comes out, clients come and go, and everything is as it was afterwards."""

from __future__ import annotations

import contextlib
import os
import socket
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from runtime.consoles.hostend import KEPT
from runtime.consoles.spec import BOOT_CONSOLE, Line
from tests.consoles.guest import Guest, eventually, guest, tcp, unix
from tests.consoles.test_telnet_wire import GREETING, IAC, NAWS, WILL, window
from umlfs.errors import UmlError, UsageError

ESCAPED_WINDOW = IAC + WILL + NAWS + window(255, 50)


def place(it: Guest, line: str = "con1") -> str:
    return it.consoles.describe(Line.parse(line))


# port -----------------------------------------------------------------------------------------


async def test_port() -> None:
    async with guest("con1=port:0") as it, tcp(place(it)) as client:
        await client.see(GREETING)
        await it.say("con1", b"login: \xff\r\n")
        await client.see(b"login: \xff\xff\r\n")
        await client.send(b"root\r\0" + ESCAPED_WINDOW + b"x")
        await it.heard("con1", b"root\rx")
        await it.has_size("con1", 50, 255)


async def test_port_serves_one_at_a_time_again_and_again() -> None:
    async with guest("con1=port:0") as it:
        async with tcp(place(it)) as first:
            await first.see(GREETING)
            async with tcp(place(it)) as second:
                refusal = await second.end()
                port = first.stream.socket.getsockname()[1]
                way_out = "try again when that client has left"
                assert refusal == f"con1 is in use by 127.0.0.1 port {port}; {way_out}\r\n".encode()
            await it.say("con1", b"for the first")
            await first.see(b"for the first")
        for number in range(30):
            async with tcp(place(it)) as client:
                await client.send(b"%d" % (number % 10))
                await client.see(GREETING)
                await it.heard("con1", b"%d" % (number % 10))


async def test_port_replays_what_was_said_before() -> None:
    async with guest("con1=port:0") as it:
        await it.say("con1", b"x" * 2 * KEPT + b"the last words")
        await eventually(lambda: it.consoles.end(Line.parse("con1")).said == 2 * KEPT + 14)
        async with tcp(place(it)) as client:
            assert len(await client.see(b"the last words")) == len(GREETING) + KEPT - 14


async def test_a_port_for_several_lines() -> None:
    """Who comes first gets a line where somebody waits."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    async with guest(f"con1=port:{port}", f"con2=port:{port}", f"ssl3=port:{port}") as it:
        await it.say("con2", b"I am con2")
        await eventually(lambda: it.consoles.end(Line.parse("con2")).said == 9)
        async with tcp(place(it)) as one, tcp(place(it)) as two, tcp(place(it)) as three, tcp(place(it)) as four:
            await one.see(b"I am con2")
            await two.see(GREETING)
            await three.see(GREETING)
            await it.say("con1", b"I am con1")
            await it.say("ssl3", b"I am ssl3")
            await two.see(b"I am con1")
            await three.see(b"I am ssl3")
            assert b"ssl3 is in use by" in await four.end()


async def test_a_client_that_floods_and_leaves_frees_the_line() -> None:
    """The guest reads nothing of it, and neither memory nor the next client suffers."""
    async with guest("con1=port:0") as it:
        async with tcp(place(it)) as client:
            await client.see(GREETING)
            with trio.move_on_after(0.3):
                await client.send(b"x" * 50_000_000)
            client.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        async with tcp(place(it)) as client:
            await client.see(GREETING)
            await it.say("con1", b"still here")
            await client.see(b"still here")


async def test_a_client_that_reads_nothing_holds_nobody_up() -> None:
    async with guest("con1=port:0") as it, tcp(place(it), receive_buffer=4096) as client:
        await it.say("con1", b"x" * 8_000_000)
        await it.say("con1", b"the end")
        await client.see(b"the end")


async def test_port_addresses() -> None:
    async with guest("con1=port:0.0.0.0:0", "con2=port:[::1]:0") as it:
        assert place(it).startswith("port:0.0.0.0:")
        assert place(it, "con2").startswith("port:[::1]:")
        assert [text.partition(" assigned ")[0] for text in it.consoles.announcements] == [
            "Virtual Console 1",
            "Virtual Console 2",
        ]
    complaint = pytest.raises(UmlError, match=rf"is taken by this process \(pid {os.getpid()}\); choose another port")
    with socket.create_server(("127.0.0.1", 0)) as other, complaint:
        async with guest(f"con1=port:{other.getsockname()[1]}"):
            pass


# unix -----------------------------------------------------------------------------------------


async def test_unix(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    async with guest(f"con1=unix:{path}") as it:
        assert place(it) == f"unix:{path}"
        assert path.stat().st_mode & 0o777 == 0o600
        async with unix(path) as client:
            await it.say("con1", b"hello\r\n\xff")
            await client.see(b"hello\r\n\xff")
            await client.send(b"\xff\r\0")
            await it.heard("con1", b"\xff\r\0")
            async with unix(path) as second:
                assert (
                    await second.end() == b"con1 is in use by another program; try again when that client has left\r\n"
                )
        async with unix(path) as client:
            await client.see(b"hello\r\n\xff")
    assert not path.exists()


async def test_unix_frees_the_line_of_a_client_that_left_in_the_middle(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    async with guest(f"con1=unix:{path}") as it:
        async with unix(path) as client:
            with trio.move_on_after(0.2):
                await client.send(b"x" * 10_000_000)
        await it.say("con1", b"for the next")
        async with unix(path) as client:
            await client.see(b"for the next")


async def test_unix_is_refused_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "socket"
    monkeypatch.setattr("runtime.consoles.channels.unix.is_ours", lambda client: False)
    async with guest(f"con1=unix:{path}"), unix(path) as client:
        assert await client.end() == b"con1 belongs to another user\r\n"


# log ------------------------------------------------------------------------------------------


async def test_log(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"from before\n")
    said = os.urandom(5 * KEPT)
    async with guest(f"con0=log:{path}", f"con1=null,log:{tmp_path}/new") as it:
        await it.say("con0", said)
    assert path.read_bytes() == b"from before\n" + said
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "new").read_bytes() == b""


@pytest.mark.logs_warnings
async def test_log_on_a_full_disk(caplog: pytest.LogCaptureFixture) -> None:
    async with guest("con0=log:/dev/full") as it:
        await it.say("con0", b"x" * 5 * KEPT)
    assert caplog.messages == ["con0: log:/dev/full has gaps: No space left on device"]


async def test_log_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(UmlError, match=r"con0=log:.*/no/file: No such file or directory; name a file that you may"):
        async with guest(f"con0=log:{tmp_path}/no/file"):
            pass


# pts and tty ----------------------------------------------------------------------------------


@contextlib.contextmanager
def terminal(path: str) -> Iterator[int]:
    fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    try:
        yield fd
    finally:
        os.close(fd)


async def read(fd: int, count: int) -> bytes:
    got = b""
    with trio.fail_after(60):
        while len(got) < count:
            await trio.lowlevel.wait_readable(fd)
            got += os.read(fd, count - len(got))
    trio.lowlevel.notify_closing(fd)
    return got


@pytest.mark.parametrize("name", ["pts", "pty"])
async def test_pts(name: str) -> None:
    async with guest(f"con1={name}") as it:
        device = place(it).removeprefix("pts:")
        assert it.consoles.announcements == [f"Virtual Console 1 assigned device '{device}'"]
        await it.say("con1", b"before\r\n")
        for said in (b"once", b"again"):
            with terminal(device) as fd:
                await it.say("con1", said)
                expected = b"before\r\n" + said if said == b"once" else said
                assert await read(fd, len(expected)) == expected
                termios.tcsetwinsize(fd, (20, 60 + len(said)))
                os.write(fd, b"ls\r\xff")
                await it.heard("con1", b"ls\r\xff")
                await it.has_size("con1", 20, 60 + len(said))


async def test_pts_that_nobody_reads_holds_nobody_up() -> None:
    async with guest("con1=pts") as it:
        await it.say("con1", b"x" * 500_000)


@pytest.fixture
def host_terminal() -> Iterator[tuple[int, str]]:
    """A terminal of the host, its near end and its name; it must be as it was afterwards."""
    near, far = os.openpty()
    os.set_blocking(near, False)
    termios.tcsetwinsize(near, (30, 90))
    before = termios.tcgetattr(far)
    yield near, os.ttyname(far)
    assert termios.tcgetattr(far) == before
    os.close(near)
    os.close(far)


async def test_tty(host_terminal: tuple[int, str]) -> None:
    near, name = host_terminal
    async with guest(f"con1=tty:{name}") as it:
        assert place(it) == f"tty:{name}"
        await it.has_size("con1", 30, 90)
        await it.say("con1", b"hello\n\r")
        assert await read(near, 7) == b"hello\n\r"
        os.write(near, b"\x03\r")
        await it.heard("con1", b"\x03\r")


async def test_tty_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path, why in ((tmp_path / "file", "not a terminal"), (tmp_path / "none", "No such file or directory")):
        with pytest.raises(UmlError, match=f"con1=tty:{path}: {why}; "):
            async with guest(f"con1=tty:{path}"):
                pass


async def test_a_tty_that_hangs_up() -> None:
    """The line goes on, for its other readers."""
    near, far = os.openpty()
    async with guest(f"con1=tty:{os.ttyname(far)}") as it:
        os.close(near)
        await it.say("con1", b"x" * 500_000)
        with it.consoles.attach(Line.parse("con1")) as reader:
            assert await reader.read()
    os.close(far)


# fd -------------------------------------------------------------------------------------------


async def test_fd_of_pipes() -> None:
    (read_in, write_in), (read_out, write_out) = os.pipe(), os.pipe()
    async with guest(f"con1=fd:{read_in},fd:{write_out}") as it:
        assert place(it) == f"fd:{read_in},fd:{write_out}"
        os.write(write_in, b"typed")
        await it.heard("con1", b"typed")
        # The end of the input is not the end of the output.
        os.close(write_in)
        await it.say("con1", b"said")
        assert await trio.to_thread.run_sync(os.read, read_out, 4) == b"said"
        os.close(read_out)
        await it.say("con1", b"x" * 500_000)
    for fd in (read_in, write_out):
        os.close(fd)


async def test_fd_of_a_terminal(host_terminal: tuple[int, str]) -> None:
    near, name = host_terminal
    with terminal(name) as fd:
        async with guest(f"con1=fd:{fd}") as it:
            assert not termios.tcgetattr(fd)[3] & termios.ECHO
            await it.has_size("con1", 30, 90)
            os.write(near, b"\x03\r")
            await it.heard("con1", b"\x03\r")
            await it.say("con1", b"hello\n")
            assert await read(near, 6) == b"hello\n"


async def test_fd_of_a_socket() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        said = os.urandom(3_000_000)
        async with guest(f"con1=fd:{theirs.fileno()}") as it, trio.open_nursery() as nursery:
            ours.send(b"typed")
            await it.heard("con1", b"typed")
            nursery.start_soon(it.say, "con1", said)
            got = b""
            while len(got) < len(said):
                got += await trio.to_thread.run_sync(ours.recv, 1 << 20)
            assert got == said
        assert theirs.getblocking()


async def test_fd_that_is_not_open() -> None:
    with pytest.raises(UmlError, match="con1=fd:987654: Bad file descriptor; name a descriptor that is open"):
        async with guest("con1=fd:987654"):
            pass


# All together ---------------------------------------------------------------------------------


async def test_what_the_kernel_is_told(tmp_path: Path) -> None:
    async with guest("con1=pts", "con3=none", "ssl=none", "ssl2=null") as it:
        ends = it.consoles.ends
        assert list(map(str, ends)) == ["con0", "con1", "ssl2"]
        assert it.consoles.inherited == [end.slave for end in ends.values()]
        assert it.consoles.arguments == [
            *("con=null", "ssl=none", "con3=none"),
            *(f"{line}=fd:{end.slave}" for line, end in ends.items()),
        ]
        assert it.consoles.preferred == Line.parse("con1")
        described = {name: it.consoles.describe(Line.parse(name)) for name in ("con0", "con2", "con3", "ssl0", "ssl2")}
        assert described == {"con0": "null", "con2": "null", "con3": "none", "ssl0": "none", "ssl2": "null"}
        with pytest.raises(UsageError, match="con2: this machine has no such line; it has con0, con1, ssl2"):
            it.consoles.attach(Line.parse("con2"))
    async with guest() as it:
        assert it.consoles.preferred == BOOT_CONSOLE
        assert it.consoles.arguments[:2] == ["con=null", "ssl=null"]


async def test_input_and_output_apart(tmp_path: Path) -> None:
    socket_path, log = tmp_path / "in", tmp_path / "out"
    async with guest(f"con1=unix:{socket_path},log:{log}") as it:
        assert place(it) == f"unix:{socket_path},log:{log}"
        async with unix(socket_path) as client:
            await client.send(b"typed")
            await it.heard("con1", b"typed")
            await it.say("con1", b"said")
            await eventually(lambda: log.read_bytes() == b"said")
        assert client.seen == b""


async def test_all_lines_at_once() -> None:
    async with guest("con=pts", "ssl=null,log:/dev/null") as it:
        assert len(it.consoles.inherited) == 16 + 64
        await it.say("ssl63", b"hello")
        await eventually(lambda: it.consoles.end(Line.parse("ssl63")).said == 5)


async def test_what_was_opened_is_closed_when_another_cannot_be(tmp_path: Path) -> None:
    """The fixture sees to it that no descriptor is left."""
    path = tmp_path / "socket"
    words = [f"con1=unix:{path}", "con2=pts", "con3=port:0", "con4=fd:987654"]
    with pytest.raises(UmlError, match="con4=fd:987654"):
        async with guest(*words, log_directory=tmp_path):
            pass
    assert not path.exists()
