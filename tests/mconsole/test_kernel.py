"""The real kernel: every request, asked by our client, by Debian's, and by both through our public socket."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from runtime.mconsole.blocking import ask
from runtime.mconsole.client import Client
from runtime.mconsole.commands import log_requests
from runtime.mconsole.notify import Notifications, listening
from runtime.mconsole.server import serving
from runtime.mconsole.wire import NoticeKind, Notification, Reply
from tests import needs
from tests.mconsole.guest import Guest, booted
from tests.ordinary import ROOT
from umlfs.errors import UmlError

pytestmark = [pytest.mark.guest, pytest.mark.interop]

LONG = 60.0

REQUESTS = [
    ("version", 0, r"Linux \(none\) 6\.\d+\S* .* x86_64"),
    ("versionXYZ", 0, r"Linux .*"),
    ("help", 0, r"Commands: \n    version - .*    stack <pid> - .*(devices - .*)?"),
    ("Version", 1, "Unknown command"),
    (" version", 1, "Unknown command"),
    ("umlfs 0", 1, "Unknown command"),
    ("go", 1, "Not stopped"),
    ("log hello from outside", 0, ""),
    ("proc version", 0, r"\nLinux version .*\n"),
    ("proc /sys/kernel/ostype", 0, r"\nLinux\n"),
    ("proc nothing", 1, "Failed to open file"),
    ("proc", 1, "Read of file failed"),
    ("proc sys", 1, "Read of file failed"),
    ("stack", 1, "Please specify a pid"),
    ("stack 0", 1, "Couldn't find that pid"),
    # Now and then the kernel believes that it stumbled over this stack before.
    ("stack 2", 0, r".*Call Trace:.*kthreadd.*|Received SIGSEGV in SIGSEGV handler, .*"),
    ("sysrq", 0, r"sysrq: HELP : loglevel\(0-9\).*\n"),
    ("sysrq h", 0, r"sysrq: HELP : .*\n"),
    ("sysrq m", 0, r"sysrq: Show Memory\nMem-Info:.*"),
    ("sysrq s", 0, r"sysrq: Emergency Sync\n"),
    ("config mem", 0, "1610612736"),
    ("config mem=5M", -22, "Expected increment to start with '-' or '[+]'"),
    ("config mem=-4M", 0, ""),
    ("config mem=+4M", 0, ""),
    ("remove mem", -16, "Memory doesn't support the remove operation"),
    ("config con2=pts", 0, ""),
    ("config con2", 0, "pts"),
    ("remove con2", 0, ""),
    ("remove con4", -22, "configured as 'none'"),
    ("config con1=null", -22, "Device is already open"),
    ("config con=pts", -22, "Can't configure all devices from mconsole"),
    ("config con20=null", -22, "Device number out of range"),
    ("config ssl0=null", 0, ""),
    ("config ssl0=none", 0, "configured as 'none'"),
    ("config eth0", 1, "No get_config routine defined"),
    ("remove eth0", -19, "Device doesn't exist"),
    ("config ubd3=/dev/null/nothing", -20, "Couldn't determine size of device's file"),
    ("config nothing0=1", 1, "Bad configuration option"),
    ("remove nothing0", 1, "Bad remove option"),
]
"""Requests in an order in which the last leaves the machine as the first found it; the error, and the text."""


def check(asked: str, reply: Reply) -> None:
    err, text = next((err, text) for line, err, text in REQUESTS if line == asked)
    assert reply.err == err, (asked, reply)
    assert re.fullmatch(text, reply.text, re.DOTALL), (asked, reply)


async def none_of_ours(argument: str) -> Reply:
    raise AssertionError(argument)


@asynccontextmanager
async def public(guest: Guest) -> AsyncIterator[Path]:
    """Our socket in front of the kernel's, with requests of its own that nobody asks for here."""
    path = guest.keeper.directory / "public"
    async with serving(path, guest.console, {"config hostfs": none_of_ours, "devices": none_of_ours}):
        yield path


def debians(path: Path, *words: str) -> tuple[int, str, str]:
    """Exit status, `OK` or `ERR`, and the text that Debian's client prints."""
    done = subprocess.run(
        [str(needs.path("/usr/bin/uml_mconsole")), str(path), *words], capture_output=True, timeout=LONG
    )
    word, _, text = done.stdout.decode().partition(" ")
    return done.returncode, word, text.removesuffix("\n")


def test_every_request(guest: Guest) -> None:
    for line, *_ in REQUESTS:
        check(line, ask(guest.console, line, LONG))
    guest.log.wait_for("hello from outside")


async def test_every_request_through_our_socket(guest: Guest) -> None:
    async with public(guest) as path:
        for line, *_ in REQUESTS:
            check(line, await Client(path).request(line, LONG))


async def test_debians_client_through_our_socket(guest: Guest) -> None:
    """It hangs where the kernel drops pieces of its answer; we take all of them, and wait for those who read slowly."""
    async with public(guest) as path:
        for line, *_ in REQUESTS:
            if line.startswith(("help", "log", " ")):
                continue  # It adds to the help, asks twice for a log, and knows no leading blank.
            status, word, text = await trio.to_thread.run_sync(debians, path, *line.split(" "))
            err = next(err for asked, err, _ in REQUESTS if asked == line)
            assert (status, word) == (err & 0xFF, "ERR" if err else "OK")
            check(line, Reply(err, text))


def test_debians_client_and_the_kernel(guest: Guest) -> None:
    """Where no answer has more pieces than a socket's queue takes, all is the same without us."""
    for line in ("version", "config con2=pts", "remove con2", "config con=pts", "proc nothing", "stack 0"):
        err = next(err for asked, err, _ in REQUESTS if asked == line)
        status, _, text = debians(guest.console, *line.split(" "))
        assert status == err & 0xFF
        check(line, Reply(err, text))


@pytest.mark.parametrize("client", ["trio", "debian"])
async def test_stop_and_go(guest: Guest, client: str) -> None:
    """Stopped, the machine answers and its guest does nothing; both ends are told what `stop` and `go` tell."""

    async def request(path: Path, text: str) -> tuple[int, str]:
        if client == "trio":
            reply = await Client(path).request(text, LONG)
            return reply.err, reply.text
        status, _, answer = await trio.to_thread.run_sync(debians, path, text)
        return status, answer

    async with public(guest) as path:
        for to in (path, guest.console):
            assert await request(to, "go") == (1, "Not stopped")
            assert await request(to, "stop") == (0, "stopped")
            guest.start("echo this was said while stopped")
            assert await request(to, "stop") == (1, "Already stopped")
            assert (await request(to, "version"))[0] == 0
            count = guest.log.count("this was said while stopped")
            assert await request(to, "go") == (0, "")
            guest.log.wait_for("this was said while stopped", count + 1)
            assert await request(to, "go") == (1, "Not stopped")
            guest.do("true")


async def test_log_in_pieces(guest: Guest) -> None:
    text = "".join(f"line {number} of many that are logged\n" for number in range(60))
    for request in log_requests(text.encode()):
        assert (await Client(guest.console).request(request, LONG)).err == 0
    for number in (0, 30, 59):
        guest.log.wait_for(f"line {number} of many")


async def following(notifications: Notifications) -> Notification:
    with trio.fail_after(LONG):
        return await anext(notifications)


async def test_life_and_death_of_a_machine(tmp_path: Path) -> None:
    """Boots, words of the guest, restarts of both kinds, and a panic."""
    tmp_path.chmod(0o700)
    with listening(tmp_path / "notify") as notifications, booted(f"mconsole=notify:{tmp_path}/notify") as guest:
        boot = Notification(NoticeKind.BOOT, str(guest.console))
        assert await following(notifications) == boot
        guest.do("echo hello >/proc/mconsole")
        assert await following(notifications) == Notification(NoticeKind.USER, "hello\n")
        guest.do(f"echo {'x' * 600} >/proc/mconsole")
        assert await following(notifications) == Notification(NoticeKind.USER, "x" * 512)
        for count, request in enumerate(("reboot", "cad"), 2):
            assert await Client(guest.console).request(request, LONG) == Reply()
            assert await following(notifications) == boot
            await trio.to_thread.run_sync(guest.log.wait_for, "guest is up", count)
        # Not `sysrq b`: it restarts from within an interrupt, with the signals blocked that the next kernel needs.
        guest.start("echo c >/proc/sysrq-trigger")
        assert await following(notifications) == Notification(NoticeKind.PANIC, "sysrq triggered crash")
        assert await guest.keeper.wait(guest.process) == -signal.SIGABRT
        # A helper of the kernel may live on, and with it the socket.
        with pytest.raises(UmlError, match=r"nobody answers there any more|no answer within"):
            await Client(guest.console).request("version", 1)


async def test_a_flood_of_notifications(tmp_path: Path) -> None:
    """The guest waits for those who take them, and is not stopped."""
    tmp_path.chmod(0o700)
    with listening(tmp_path / "notify") as notifications, booted(f"mconsole=notify:{tmp_path}/notify") as guest:
        guest.start("i=0; while [ $i -lt 200 ]; do echo $i >/proc/mconsole; i=$((i + 1)); done; echo all said")
        assert (await following(notifications)).kind is NoticeKind.BOOT
        said = [int((await following(notifications)).text)]
        while said[-1] != 199:
            said.append(int((await following(notifications)).text))
        guest.log.wait_for("all said")
        assert said == sorted(said)


def replaced_watchdog(tmp_path: Path, *options: str) -> list[str]:
    """The words before a kernel's command that give it our uml_watchdog in the place of Debian's."""
    script = tmp_path / "uml_watchdog"
    program = "from runtime.cli.historical.watchdog import main; main()"
    script.write_text(
        f"#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -P -c '{program}' \"$@\" {' '.join(options)}\n"
    )
    script.chmod(0o755)
    mount = f'mount --bind {script} /usr/bin/uml_watchdog && exec "$@"'
    return [*needs.mount_namespace(), "sh", "-c", mount, "sh"]


@pytest.mark.parametrize("debian", [False, pytest.param(True, marks=pytest.mark.slow)])
async def test_a_hang_is_notified_and_halt_ends_it(tmp_path: Path, debian: bool) -> None:
    tmp_path.chmod(0o700)
    before = [] if debian else replaced_watchdog(tmp_path, "--timeout", "1")
    notify = f"mconsole=notify:{tmp_path}/notify"
    with listening(tmp_path / "notify") as notifications, booted(notify, before=before) as guest:
        guest.start("exec 3>/watchdog; echo >&3; echo >&3")
        assert (await following(notifications)).kind is NoticeKind.BOOT
        with trio.fail_after(LONG * 2):
            assert await anext(notifications) == Notification(NoticeKind.HANG)
        assert await Client(guest.console).request("halt", LONG) == Reply()
        assert await guest.keeper.wait(guest.process) == 0
        assert not guest.directory.exists()


async def test_a_hung_kernel_is_ended(tmp_path: Path) -> None:
    with booted(before=replaced_watchdog(tmp_path, "--timeout", "1")) as guest:
        guest.start("exec 3>/watchdog; exec 3>&-; exec 3>/watchdog")
        with trio.fail_after(LONG):
            assert await guest.keeper.wait(guest.process) == 1
