"""Every channel with a real kernel behind it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import termios
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import trio

from runtime.consoles.hostend import KEPT, HostEnd, Reader
from runtime.consoles.lines import Consoles
from runtime.consoles.spec import BOOT_CONSOLE, Line, parse_all
from runtime.consoles.tty_log import Direction, records
from runtime.process.keeper import Keeper
from tests.consoles.guest import Client, tcp, unix
from tests.consoles.test_telnet_wire import IAC, NAWS, WILL, window

pytestmark = pytest.mark.guest

Arguments = Callable[..., list[str]]

BOUND = 60
START = """\
/bin/busybox mkdir -p /bin
/bin/busybox --install -s /bin
export PATH=/bin
mount -t devtmpfs dev /dev
serve() {
    while :; do
        setsid -c sh -c 'echo "$0 is open"; while read -r word arguments; do
            case $word in
                size) stty size ;;
                hangup) exit ;;
                sum) stty raw -echo; echo "ready"; head -c $arguments | md5sum; stty sane ;;
                flood) dd if=/dev/zero bs=4096 count=$arguments 2>/dev/null; echo "$0 has flooded" >/dev/console ;;
                *) echo "$0 heard $word" ;;
            esac
        done' $1 <>/dev/$1 >&0 2>&1
    done
}
"""
END = """\
wait
"""
LINES = ("tty1", "tty2", "tty3", "ttyS0", "ttyS1", "ttyS2")


class Stream(Client):
    """A descriptor of the host as a client."""

    def __init__(self, fd: int, out: int | None = None) -> None:
        self.fd, self.out, self.seen = fd, fd if out is None else out, b""

    async def see(self, text: bytes) -> bytes:
        with trio.fail_after(BOUND):
            while text not in self.seen:
                await trio.lowlevel.wait_readable(self.fd)
                self.seen += os.read(self.fd, 65536)
        before, _, self.seen = self.seen.partition(text)
        return before

    async def send(self, data: bytes) -> None:
        os.write(self.out, data)


@contextlib.asynccontextmanager
async def booted(arguments: Arguments, tmp_path: Path, script: str, *words: str) -> AsyncIterator[Consoles]:
    with Keeper(tmp_path) as keeper:
        async with Consoles(parse_all(words), log_directory=tmp_path, directory=keeper.directory) as consoles:
            command = arguments(START + script + END, *consoles.arguments)
            keeper.spawn(command, output=subprocess.DEVNULL, pass_fds=consoles.inherited)
            yield consoles
            keeper.close()


async def boot_console_says(consoles: Consoles, text: bytes, times: int = 1) -> bytes:
    said = b""
    with consoles.attach(BOOT_CONSOLE) as reader, trio.fail_after(BOUND):
        while said.count(text) < times:
            said += await reader.read()
    return said


class Attached(Client):
    """One who is attached to a line."""

    def __init__(self, end: HostEnd, reader: Reader) -> None:
        self.end_of_line, self.reader, self.seen = end, reader, b""

    async def see(self, text: bytes) -> bytes:
        with trio.fail_after(BOUND):
            while text not in self.seen:
                self.seen += await self.reader.read()
        before, _, self.seen = self.seen.partition(text)
        return before

    async def send(self, data: bytes) -> None:
        await self.end_of_line.type(data)


async def has_size(client: Client, rows: int, columns: int) -> None:
    """The guest is told of it some time, by a process of its own."""
    with trio.fail_after(BOUND):
        while True:
            await client.send(b"size\r")
            await client.see(b"size\r\n")
            if await client.see(b"\r\n") == b"%d %d" % (rows, columns):
                return


async def converse(name: str, client: Client) -> None:
    await client.see(f"{name} is open\r\n".encode())
    await client.send(b"hello\r")
    await client.see(f"hello\r\n{name} heard hello\r\n".encode())


async def test_every_channel(kernel_arguments: Arguments, tmp_path: Path) -> None:
    script = "".join(f"serve {name} &\n" for name in LINES)
    script += "[ -c /dev/tty5 ] || echo no tty5\necho x >/dev/tty6 && echo null swallows\n"
    (read_in, write_in), (read_out, write_out) = os.pipe(), os.pipe()
    near, far = os.openpty()
    termios.tcsetwinsize(near, (30, 90))
    words = [f"con0=log:{tmp_path}/boot", "con1=port:0", f"con2=unix:{tmp_path}/socket", "con3=pts", "con5=none"]
    words += [f"ssl0=fd:{read_in},fd:{write_out}", f"ssl1=tty:{os.ttyname(far)}", "ssl2=null"]
    async with booted(kernel_arguments, tmp_path, script, *words) as consoles:
        said = await boot_console_says(consoles, b"null swallows")
        assert b"no tty5" in said
        await converse("ttyS0", Stream(read_out, write_in))
        host = Stream(near)
        await converse("ttyS1", host)
        await has_size(host, 30, 90)
        await check_port(consoles)
        await check_unix(consoles, tmp_path / "socket")
        await check_pts(consoles)
        await check_null(consoles)
    assert b"Run /init as init process" in (tmp_path / "boot").read_bytes()
    log = list(records((tmp_path / "ssl2").read_bytes()))
    typed = b"".join(each.data for each in log if each.direction is Direction.READ)
    assert typed.startswith(b"hello\rsize\r")
    for fd in (read_in, write_in, read_out, write_out, near, far):
        os.close(fd)


async def check_port(consoles: Consoles) -> None:
    """Telnet, sizes, and a session that outlives its client and the guest's own hang-up."""
    address = consoles.describe(Line.parse("con1"))
    async with tcp(address) as client:
        await client.send(IAC + WILL + NAWS + window(101, 31))
        await converse("tty1", client)
        await has_size(client, 31, 101)
    async with tcp(address) as client:
        await client.send(IAC + WILL + NAWS + window(102, 32))
        await client.see(b"tty1 heard hello")
        await has_size(client, 32, 102)
        await client.send(b"hangup\r")
        await client.see(b"tty1 is open\r\n")
        await client.send(window(103, 33))
        await has_size(client, 33, 103)


async def check_unix(consoles: Consoles, path: Path) -> None:
    """Who reads a flood gets all of it; when nobody reads, it goes by, and who comes then gets the end of it."""
    async with unix(path) as client:
        await converse("tty2", client)
        await client.send(b"flood 300\r")
        assert (await client.see(b"\r\n")).endswith(b"flood 300")
        await client.send(b"hello\r")
        flood = await client.see(b"tty2 heard hello\r\n")
        assert flood.count(b"\0") == 300 * 4096
        await client.send(b"flood 1000\r")
    await boot_console_says(consoles, b"tty2 has flooded", times=2)
    async with unix(path) as client:
        await client.see(bytes(KEPT - 1000))


async def check_pts(consoles: Consoles) -> None:
    fd = os.open(consoles.describe(Line.parse("con3")).removeprefix("pts:"), os.O_RDWR | os.O_NOCTTY)
    await converse("tty3", Stream(fd))
    termios.tcsetwinsize(fd, (34, 104))
    client = Stream(fd)
    await has_size(client, 34, 104)
    typed = os.urandom(3000)
    await client.send(b"sum %d\r" % len(typed))
    await client.see(b"ready\n")
    await client.send(typed)
    await client.see(hashlib.md5(typed, usedforsecurity=False).hexdigest().encode())
    trio.lowlevel.notify_closing(fd)
    os.close(fd)


async def check_null(consoles: Consoles) -> None:
    """A line that is nothing on the host can be attached to, and nothing of it was lost."""
    end = consoles.end(Line.parse("ssl2"))
    end.resize(35, 105)
    with end.reader() as reader:
        attached = Attached(end, reader)
        await converse("ttyS2", attached)
        await has_size(attached, 35, 105)


async def test_all_lines_and_the_same_words_again(kernel_arguments: Arguments, tmp_path: Path) -> None:
    """80 lines with something behind each, and a second kernel that gets what the first had."""
    specs = parse_all(["con=pts", "ssl=null,log:/dev/null"])
    with Keeper(tmp_path) as keeper:
        async with Consoles(specs, directory=keeper.directory) as consoles:
            for boot in (1, 2):
                script = f"echo this is boot {boot} >/dev/ttyS63\necho boot {boot} >/dev/tty15\npoweroff -f\n"
                command = kernel_arguments(START + script, *consoles.arguments)
                kernel = keeper.spawn(command, output=subprocess.DEVNULL, pass_fds=consoles.inherited)
                with trio.fail_after(BOUND):
                    await keeper.wait(kernel)
                    for line in ("ssl63", "con15"):
                        said = b""
                        with consoles.attach(Line.parse(line)) as reader:
                            while b"boot %d\r\n" % boot not in said:
                                said += await reader.read()
