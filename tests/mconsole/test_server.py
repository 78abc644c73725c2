"""The public socket, in front of a fake kernel."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from runtime.mconsole import outlet, server
from runtime.mconsole.blocking import ask
from runtime.mconsole.client import Client
from runtime.mconsole.server import serving
from runtime.mconsole.wire import NOT_VERSION_2, Reply, decode_piece, encode_piece, encode_request
from tests import needs
from tests.mconsole.machine import Machine, machine
from tests.ordinary import OrdinaryUser
from umlfs.errors import UmlError

LONG = 60.0
BIG = "x" * 40_000


class Ours:
    """Requests of our own."""

    def __init__(self) -> None:
        self.begun = trio.Event()
        self.go_on = trio.Event()
        self.done = 0

    async def config(self, argument: str) -> Reply:
        return Reply(0, f"ours: {argument}")

    async def big(self, argument: str) -> Reply:
        return Reply(0, BIG)

    async def slow(self, argument: str) -> Reply:
        self.begun.set()
        await self.go_on.wait()
        self.done += 1
        return Reply(0, "at last")

    async def failing(self, argument: str) -> Reply:
        if argument == "mine":
            raise UmlError("no", "try yes")
        if argument == "system":
            raise OSError(errno.EBUSY, "busy")
        raise ValueError(argument)


class Setting:
    def __init__(self, path: Path, kernel: Machine) -> None:
        self.path = path
        self.kernel = kernel
        self.ours = Ours()
        self.client = Client(path)


@pytest.fixture
async def setting(tmp_path: Path) -> AsyncIterator[Setting]:
    place = tmp_path / "m"
    place.mkdir(mode=0o700)
    with machine(tmp_path / "kernel" / "s") as kernel:
        found = Setting(place / "mconsole", kernel)
        ours = found.ours
        handlers = {
            "config ubd": ours.config,
            "big": ours.big,
            "slow": ours.slow,
            "fails": ours.failing,
        }
        async with serving(found.path, kernel.path, handlers, ["big - a long answer"]):
            yield found
    assert not found.path.exists()


def client_socket(name: str | bytes | None = "") -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    made.setblocking(False)
    if name is not None:
        made.bind(name)
    return made


async def received(client: socket.socket) -> bytes:
    with trio.fail_after(LONG):
        await trio.lowlevel.wait_readable(client)
    return client.recv(4096)


async def test_ours_and_the_kernels(setting: Setting) -> None:
    ask = setting.client.request
    assert await ask("config ubd3=a,b", LONG) == Reply(0, "ours: ubd3=a,b")
    assert await ask("config \t ubd3", LONG) == Reply(0, "ours: ubd3")
    assert await ask("configubd3", LONG) == Reply(0, "ours: ubd3")
    assert setting.kernel.texts == []
    for text in ("config con1", "remove ubd3", "version", " config ubd3", "Config ubd3", ""):
        assert await ask(text, LONG) == Reply(0, text)
    assert await ask("fail -22 no", LONG) == Reply(-22, "no")
    assert len(setting.kernel.texts) == 7


async def test_replies_in_pieces(setting: Setting) -> None:
    assert await setting.client.request("pieces", LONG) == Reply(0, "0123456789" * 200)
    assert await setting.client.request("big", LONG) == Reply(0, BIG)


async def test_help_has_ours(setting: Setting) -> None:
    assert await setting.client.request("help", LONG) == Reply(0, "help    big - a long answer\n")


async def test_failures_are_replies(setting: Setting) -> None:
    assert await setting.client.request("fails mine", LONG) == Reply(1, "no; try yes")
    assert await setting.client.request("fails system", LONG) == Reply(-errno.EBUSY, "busy")


@pytest.mark.logs_warnings
async def test_a_defect_is_a_reply(setting: Setting) -> None:
    assert await setting.client.request("fails otherwise", LONG) == Reply(
        1, "internal error; the machine's log has more"
    )
    assert (await setting.client.request("version", LONG)).err == 0


async def test_no_kernel(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    async with serving(tmp_path / "mconsole", tmp_path / "none", {}, ["ours"]):
        reply = await Client(tmp_path / "mconsole").request("version", LONG)
        assert reply.err == 1
        assert "no such machine" in reply.text
        assert await Client(tmp_path / "mconsole").request("help", LONG) == Reply(0, "Commands:\n    ours\n")


async def test_a_kernel_that_is_silent(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "KERNEL_SECONDS", 0.05)
    reply = await setting.client.request("silence", LONG)
    assert reply.err == 1
    assert "no answer within 0.05 s" in reply.text


@pytest.mark.parametrize(
    ("datagram", "answer"),
    [
        (b"", NOT_VERSION_2),
        (b"version", NOT_VERSION_2),
        (struct.pack("=III", 0xCAFEBABE, 2, 512) + bytes(512), encode_piece(1, False, b"Request too large")),
        (encode_request("version")[:19], encode_piece(0, False, b"version")),
        (encode_request("version") + bytes(5000), encode_piece(0, False, b"version")),
    ],
)
async def test_odd_requests(setting: Setting, datagram: bytes, answer: bytes) -> None:
    with client_socket() as client:
        client.sendto(datagram, str(setting.path))
        assert await received(client) == answer


async def test_all_kinds_of_clients(setting: Setting, tmp_path: Path) -> None:
    """With a path, without a name (which is only heard), and connected: that one takes no answer but ours."""
    with (
        client_socket(str(tmp_path / "client")) as named,
        client_socket(None) as nameless,
        client_socket() as connected,
    ):
        nameless.sendto(encode_request("nameless"), str(setting.path))
        named.sendto(encode_request("named"), str(setting.path))
        assert decode_piece(await received(named)).text == b"named"
        connected.connect(str(setting.path))
        connected.send(encode_request("connected"))
        assert decode_piece(await received(connected)).text == b"connected"
        connected.send(encode_request("big"))
        text = b""
        while (piece := decode_piece(await received(connected))).more:
            text += piece.text
        assert (text + piece.text).decode() == BIG
    assert sorted(setting.kernel.texts) == ["connected", "named", "nameless"]


async def test_order_and_concurrency(setting: Setting) -> None:
    """A client's requests are done one after the other, and nobody else waits for them."""
    with client_socket() as client:
        client.sendto(encode_request("slow"), str(setting.path))
        client.sendto(encode_request("version"), str(setting.path))
        await setting.ours.begun.wait()
        assert await setting.client.request("version", LONG) == Reply(0, "version")
        with pytest.raises(BlockingIOError):
            client.recv(4096)
        setting.ours.go_on.set()
        assert [decode_piece(await received(client)).text for _ in range(2)] == [b"at last", b"version"]


@pytest.mark.parametrize("connected", [False, True])
async def test_clients_that_do_not_read(setting: Setting, connected: bool) -> None:
    """They delay nobody."""
    with contextlib.ExitStack() as stack:
        for _ in range(server.CLIENTS_MAX - 1):
            lazy = stack.enter_context(client_socket())
            if connected:
                lazy.connect(str(setting.path))
            await send(lazy, encode_request("big"), setting.path)
        assert await setting.client.request("version", LONG) == Reply(0, "version")
        assert await setting.client.request("big", LONG) == Reply(0, BIG)
        assert await setting.client.request("sysrq x", LONG) == Reply(0, "sysrq x")


@pytest.mark.parametrize("connected", [False, True])
async def test_clients_that_never_read_are_given_up(
    tmp_path: Path, connected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outlet, "REPLY_SECONDS", 0.05)
    with client_socket(str(tmp_path / "public")) as public, client_socket() as lazy:
        if connected:
            lazy.connect(str(tmp_path / "public"))
        with outlet.Outlet(lazy.getsockname(), public) as out, pytest.raises(outlet.Gone):
            await out.send([bytes(500)] * 1000)
        with outlet.Outlet(None, public) as out:
            await out.send([bytes(500)] * 1000)


async def test_floods_are_cut(setting: Setting) -> None:
    """Of a client's requests and of clients only so many wait; the rest is dropped."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(client_socket()) for _ in range(server.CLIENTS_MAX + 8)]
        for client in clients:
            for _ in range(server.WAITING_MAX + 8):
                await send(client, encode_request("slow"), setting.path)
        setting.ours.go_on.set()
        assert decode_piece(await received(clients[0])).text == b"at last"
    assert setting.ours.done <= server.CLIENTS_MAX * (server.WAITING_MAX + 1)


async def send(client: socket.socket, datagram: bytes, path: Path) -> None:
    while True:
        try:
            client.sendto(datagram, str(path))
        except BlockingIOError:
            await trio.lowlevel.checkpoint()
        else:
            return


async def test_descriptors_sent_along_are_dropped(setting: Setting) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with client_socket() as client, open("/dev/null") as file:
        for _ in range(5):
            descriptors = struct.pack("20i", *[file.fileno()] * 20)
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)
            client.sendmsg([encode_request("version")], [rights], 0, str(setting.path))
            assert decode_piece(await received(client)).text == b"version"
    assert len(os.listdir("/proc/self/fd")) == before


STRANGER = """
import socket, sys
from runtime.mconsole.wire import decode_piece, encode_request
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
    client.bind("")
    client.settimeout(60)
    client.sendto(encode_request("version"), sys.argv[1])
    print(decode_piece(client.recv(4096)))
"""


@pytest.mark.real_root
async def test_other_users_are_refused(user: OrdinaryUser) -> None:
    """By who they are, where the directory did not keep them out."""
    with tempfile.TemporaryDirectory(prefix="uml-", dir="/tmp") as text:
        place = Path(text)
        place.chmod(0o755)
        with machine(place / "kernel") as kernel:
            async with serving(place / "mconsole", kernel.path, {}):
                (place / "mconsole").chmod(0o666)
                path = f"PYTHONPATH={':'.join(map(str, user.path))}"
                command = user.command(path, user.python, "-P", "-c", STRANGER, place / "mconsole")
                done = await trio.to_thread.run_sync(user.run, command)
    refusal = 'Piece(err=-1, more=False, text=b"the machine is another user\'s")\n'
    assert (done.stdout, done.stderr, kernel.heard) == (refusal, "", [])


def test_the_place_of_the_socket(tmp_path: Path) -> None:
    async def serve(path: Path) -> None:
        async with serving(path, tmp_path / "kernel", {}):
            assert path.stat().st_mode & 0o777 == 0o600

    tmp_path.chmod(0o700)
    with client_socket(str(tmp_path / "stale")):
        pass
    trio.run(serve, tmp_path / "stale")
    (tmp_path / "file").touch()
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with client_socket(str(tmp_path / "used")):
        for name, why in [
            ("used", "in use by this process"),
            ("file", "is there, and is not a socket"),
            ("missing/mconsole", "cannot be made: No such file"),
            ("open/mconsole", "others may put sockets there"),
        ]:
            with pytest.raises(UmlError, match=why):
                trio.run(serve, tmp_path / name)


@pytest.mark.interop
async def test_debians_client(setting: Setting) -> None:
    program = str(needs.path("/usr/bin/uml_mconsole"))
    for words, status, output in [
        (["version"], 0, "OK version\n"),
        (["config", "ubd3=/a,/b"], 0, "OK ours: ubd3=/a,/b\n"),
        (["big"], 0, f"OK {BIG}\n"),
        (["fail", "-22", "no"], 234, "ERR no\n"),
        (["fails", "mine"], 1, "ERR no; try yes\n"),
    ]:
        done = await trio.run_process(
            [program, str(setting.path), *words], capture_stdout=True, capture_stderr=True, check=False
        )
        assert (done.returncode, done.stdout.decode()) == (status, output)


def test_blocking_clients_too(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)

    async def main() -> None:
        async with serving(tmp_path / "mconsole", tmp_path / "kernel", {"big": Ours().big}):
            assert (await trio.to_thread.run_sync(ask, tmp_path / "mconsole", "big")).text == BIG

    trio.run(main)


ALONE = """
import os, pathlib, trio
from runtime.mconsole.client import Client
from runtime.mconsole.events import follow, publishing
from runtime.mconsole.server import serving
from runtime.mconsole.wire import NoticeKind, Notification, Reply

async def devices(argument):
    return Reply(0, f"uid {os.getuid()}")

async def main():
    place = pathlib.Path.home() / ".uml" / "m"
    place.mkdir(mode=0o700, parents=True)
    async with serving(place / "mconsole", place / "kernel", {"devices": devices}):
        print((await Client(place / "mconsole").request("devices")).text)
    async with publishing(place / "events", "m") as publisher, trio.open_nursery() as nursery:
        publisher.publish(Notification(NoticeKind.BOOT, "up"))
        await follow(place / "events", lambda event: (print(event.text), nursery.cancel_scope.cancel()))

trio.run(main)
"""


def test_as_an_ordinary_user(user: OrdinaryUser) -> None:
    path = f"PYTHONPATH={':'.join(map(str, user.path))}"
    done = user.run(user.command(path, user.python, "-P", "-c", ALONE))
    assert (done.returncode, done.stdout, done.stderr) == (0, f"uid {user.uid}\nup\n", "")
