"""xterm channels, with emulators that have no window."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import trio

from runtime.consoles.channels.base import Xterm
from runtime.consoles.spec import Line
from tests.consoles.guest import eventually, guest
from umlfs.errors import UmlError

EMULATOR = """\
#!{python}
import os, pty, sys, termios
directory, (switch, title, execute, *command) = {directory!r}, sys.argv[1:]
pid, near = pty.fork()
if not pid:
    os.execvp(command[0], command)
termios.tcsetwinsize(near, (25, 81))
with open(os.path.join(directory, "shown"), "ab", 0) as shown:
    shown.write(f"[{{switch}} {{title}} {{execute}}]".encode())
    os.write(near, b"typed")
    try:
        while data := os.read(near, 65536):
            shown.write(data)
            if b"close" in data and not os.path.exists(directory + "/closed"):
                os.mkdir(directory + "/closed")
                os._exit(0)
    except OSError:
        shown.write(b"[over]")
"""


@pytest.fixture
def emulator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An emulator that keeps what it shows, and is closed, once, by what is shown."""
    monkeypatch.setenv("DISPLAY", ":987")
    path = tmp_path / "emulator"
    path.write_text(EMULATOR.format(python=sys.executable, directory=str(tmp_path)))
    path.chmod(0o755)
    return path


async def shown(emulator: Path, text: bytes) -> None:
    path = emulator.parent / "shown"
    await eventually(lambda: path.exists() and text in path.read_bytes())


async def test_a_window_when_there_is_something_to_show(emulator: Path) -> None:
    async with guest("con4=xterm", xterm=Xterm(str(emulator), "-T", "-e"), umid="debian") as it:
        assert it.consoles.describe(Line.parse("con4")) == "xterm"
        await trio.testing.wait_all_tasks_blocked()
        assert not (emulator.parent / "shown").exists()
        await it.say("con4", b"login: ")
        await shown(emulator, b"login: ")
        await shown(emulator, b"[-T Virtual Console #4 (debian) -e]")
        await it.heard("con4", b"typed")
        await it.has_size("con4", 25, 81)
        await it.say("con4", b"close")
        await eventually(lambda: it.consoles._channels[0]._process is None)  # type: ignore[attr-defined]
        (emulator.parent / "shown").unlink()
        await it.say("con4", b"again")
        await shown(emulator, b"again")
    await shown(emulator, b"[over]")


@pytest.mark.logs_warnings
@pytest.mark.parametrize("content", ["#!/bin/sh\nexit 3\n", "no program"])
async def test_an_emulator_that_fails(content: str, emulator: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The line goes on without."""
    emulator.write_text(content)
    async with guest("con4=xterm", xterm=Xterm(str(emulator))) as it:
        await it.say("con4", b"x" * 300_000)
        await eventually(lambda: bool(caplog.messages))
        await it.say("con4", b"x" * 300_000)
    why = "shows no window" if content.startswith("#!") else "cannot be started: Exec format error"
    assert caplog.messages == [f"con4: {emulator} {why}"]


async def test_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(UmlError, match=r"con4=xterm: \$DISPLAY is not set; write con4=pts or con4=port:N"):
        async with guest("con4=xterm"):
            pass
    monkeypatch.setenv("DISPLAY", ":987")
    with pytest.raises(UmlError, match="con4=xterm: there is no program none-such; name one that is installed"):
        async with guest("con4=xterm", xterm=Xterm("none-such")):
            pass
