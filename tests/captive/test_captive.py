"""A guest inside a program: what the program sees of the guest, and the guest of the program."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
from contextlib import aclosing
from pathlib import Path

import pytest
import trio

from runtime.captive import Captive, EventKind, Limits, Mount, Tree, captive
from tests.captive.trees import Bad, Notes
from tests.ordinary import accounts_at_rest
from umlfs.errors import UmlError, UsageError
from umlfs.externfs.filesystem import NodeFilesystem

pytestmark = pytest.mark.guest
SMALL = Limits(memory=96 << 20)


async def test_a_program_and_its_guest() -> None:
    notes = {"milk": b"two litres\n"}
    async with captive(mounts={"/app": Notes(notes)}, limits=SMALL) as guest:
        assert (await guest.run(["cat", "/app/milk"], check=True)).stdout == b"two litres\n"
        await guest.run(["sh", "-c", "echo six >/app/eggs; rm /app/milk; exit 3"])
        assert notes == {"eggs": b"six\n"}
        notes["bread"] = b"rye\n"
        assert (await guest.run(["ls", "/app"])).stdout == b"bread\neggs\n"
        assert (await guest.run(["false"])).returncode == 1
        with pytest.raises(subprocess.CalledProcessError):
            await guest.run(["false"], check=True)
        with pytest.raises(UmlError, match="no-such-thing"):
            await guest.run(["no-such-thing"])
        with pytest.raises(TypeError):
            await guest.run("ls /app")
        await _users(guest)
        await _streams(guest)
        await _time_limit(guest)
        await _files(guest)
        with accounts_at_rest():
            await _logins(guest)


async def _users(guest: Captive) -> None:
    assert (await guest.as_user("nobody").run(["id", "-un"])).stdout == b"nobody\n"
    with pytest.raises(UmlError, match="no such user"):
        await guest.as_user("mallory").run(["id"])


async def _streams(guest: Captive) -> None:
    async with guest.start(["sh", "-c", "cat; echo told >&2; exit 5"]) as process:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_feed, process.stdin)
            found = b"".join([piece async for piece in process.stdout])
            assert len(found) == 3 << 20
        assert await process.stderr.receive_some() == b"told\n"
        assert await process.wait() == 5
    async with guest.start(["sh", "-c", "echo $$; exec sleep 1000"]) as process:
        pid = (await process.stdout.receive_some()).decode().strip()
    assert (await guest.run(["test", "-e", f"/proc/{pid}"])).returncode == 1
    async with guest.start(["sleep", "1000"]) as process:
        process.signal("SIGTERM")
        assert await process.wait() == 128 + signal.SIGTERM


async def _feed(stdin: trio.abc.SendStream) -> None:
    async with stdin:
        for _ in range(3):
            await stdin.send_all(bytes(1 << 20))


async def _time_limit(guest: Captive) -> None:
    with pytest.raises(subprocess.TimeoutExpired) as failure:
        await guest.run(["sh", "-c", "echo begun; sleep 1000"], timeout=4)
    assert failure.value.output == b"begun\n"


async def _files(guest: Captive) -> None:
    files = guest.files
    await files.mkdir("/tmp/new")
    await files.write("/tmp/new/file", b"x" * (3 << 20), mode=0o600, owner=(1, 2))
    assert (await guest.run(["stat", "-c", "%s %a %u %g", "/tmp/new/file"])).stdout == b"3145728 600 1 2\n"
    await files.write("/tmp/new/file", b"short")
    assert await files.read("/tmp/new/file") == b"short"
    assert b"processor" in await files.read("/proc/cpuinfo")
    await files.rename("/tmp/new/file", "/tmp/new/other")
    assert await files.listdir("/tmp/new") == ["other"]
    async with aclosing(files.walk("/tmp/new")) as found:
        assert [each async for each in found] == [("/tmp/new", [], ["other"])]
    with pytest.raises(UmlError, match="longer"):
        await files.read("/tmp/new/other", limit=3)
    await files.remove("/tmp/new/other")
    await files.remove("/tmp/new")
    assert not await files.exists("/tmp/new")
    with pytest.raises(FileNotFoundError):
        await files.read("/nowhere")


async def _logins(guest: Captive) -> None:
    await guest.run(["useradd", "-m", "-s", "/bin/sh", "anna"], check=True)
    assert await guest.login("anna", "secret") is None
    await guest.run(["chpasswd"], input=b"anna:secret\n", check=True)
    account = await guest.login("anna", "secret")
    assert account is not None
    assert (account.name, account.home, account.shell) == ("anna", "/home/anna", "/bin/sh")
    assert (await guest.as_user(account).run(["id", "-u"])).stdout == b"%d\n" % account.uid
    for name, password in [("anna", "Secret"), ("anna", ""), ("root", "secret"), ("bob", "secret"), ("-x", "secret")]:
        assert await guest.login(name, password) is None
    assert await guest.login("anna:secret\nroot", "x") is None
    await guest.run(["chage", "-E", "1", "anna"], check=True)
    assert await guest.login("anna", "secret") is None


@pytest.mark.logs_warnings
async def test_bad_trees_are_the_guests_error() -> None:
    limits = Limits(memory=96 << 20, time_limit=0.5)
    shared = NodeFilesystem(Notes({"note": b"here\n"}))
    mounts: dict[str, Tree | Mount] = {"/bad": Bad(), "/ro": Mount(Notes({}), read_only=True), "/shared": shared}
    async with captive(mounts=mounts, limits=limits) as guest:
        for name in ("raises", "hangs"):
            done = await guest.run(["cat", f"/bad/{name}"])
            assert b"Input/output error" in done.stderr
        assert (await guest.run(["cat", "/bad/fine", "/shared/note"])).stdout == b"fine\nhere\n"
        assert b"Read-only" in (await guest.run(["touch", "/ro/x"])).stderr
    async with captive(mounts={"/shared": shared}, limits=limits) as guest:
        assert await guest.files.read("/shared/note") == b"here\n"
    await shared.close()


async def test_events() -> None:
    async with captive(limits=SMALL) as guest:
        with pytest.raises(UmlError, match="the guest ended by itself"):
            await guest.run(["sh", "-c", "echo -n hello >/proc/mconsole; echo c >/proc/sysrq-trigger"])
        found = [event async for event in guest.events]
        assert not guest.alive
        with pytest.raises(UmlError, match="the guest is gone"):
            await guest.run(["true"])
    assert [event.kind for event in found] == [EventKind.USER, EventKind.PANIC, EventKind.EXIT]
    assert found[0].text == "hello"


async def test_snapshots(tmp_path: Path) -> None:
    subprocess.run(["truncate", "-s", "16M", tmp_path / "disk"], check=True)
    words = [f"ubd0={tmp_path}/cow,{tmp_path}/disk"]
    async with captive(disks=words, limits=SMALL) as guest:
        await guest.run(["dd", "if=/dev/zero", "of=/dev/ubda", "bs=4k", "count=1", "conv=fsync"], check=True)
        (copy,) = await guest.snapshot()
        assert Path(copy).stat().st_size
    async with captive(limits=SMALL) as guest:
        with pytest.raises(UmlError, match="no COW file"):
            await guest.snapshot()


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ({"mounts": {"/app": 5}}, "/app: a int is not a tree"),
        ({"mounts": {"app": Notes({})}}, "not a place"),
        ({"mounts": {"/proc": Notes({})}}, "every guest has its own"),
        ({"root": "nosuch:/"}, "unknown kind"),
        ({"network": "nosuch"}, "nosuch"),
        ({"disks": ["hda=x"]}, "hda"),
    ],
)
async def test_words_that_mean_nothing(words: dict[str, object], what: str) -> None:
    with pytest.raises(UsageError, match=what):
        async with captive(**words):  # type: ignore[arg-type]
            pytest.fail("it came up")


def test_limits_that_mean_nothing() -> None:
    with pytest.raises(UsageError, match="too little"):
        Limits(memory=1)
    with pytest.raises(UsageError, match="not a limit"):
        Limits(time_limit=0)


async def test_two_that_write_to_one_root(tmp_path: Path) -> None:
    async def again() -> None:
        async with captive(root="hostfs:/", writable=True, limits=SMALL):
            pytest.fail("it came up")

    from runtime.captive.roots import claimed

    with claimed("hostfs:/"), pytest.raises(UmlError, match="another captive guest writes to it"):
        await again()


DIES = """
import os, sys, trio
from runtime.captive import captive
from tests.captive.trees import Notes

def line(text):
    os.write(1, f"{text}\\n".encode())  # Whole: two processes write to this pipe.

async def main():
    async with captive(mounts={"/app": Notes({})}) as guest:
        child = os.fork()
        if not child:
            try:
                guest.machine_for(["true"])
            except Exception as error:
                line(error)
            import time
            time.sleep(1000)
        line(f"{guest.pid} {child}")
        await trio.sleep_forever()

trio.run(main)
"""


def test_nothing_is_left_of_a_program_that_dies_and_has_forked(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "XDG_RUNTIME_DIR": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", DIES], stdout=subprocess.PIPE, env=env, text=True) as program:
        assert program.stdout is not None
        try:
            lines = sorted([program.stdout.readline(), program.stdout.readline()])
        finally:
            program.kill()
    kernel, child = map(int, lines[0].split())
    try:
        assert "forked" in lines[1]
        with contextlib.suppress(ProcessLookupError):
            watch = os.pidfd_open(kernel)
            assert select.select([watch], [], [], 20)[0], "the kernel runs on"
            os.close(watch)
    finally:
        os.kill(child, signal.SIGKILL)
