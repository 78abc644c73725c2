"""`--mount DIR=SRC:notify`: what the host changes wakes the guest's programs, by inotify."""

from __future__ import annotations

import sys

import pytest

from tests import needs
from tests.announcements import FILES, WATCHER, Watcher, check_steps, state
from tests.guest.caller import BOUND, Caller

pytestmark = pytest.mark.guest

SCRIPT = r"""
python=$1 watcher=$2
chmod 600 /g/sub/inner
{
    until [ -e /g/go ]; do sleep 0.05; done
    echo x >/g/own && mv /g/own /g/mine && chmod 600 /g/mine && rm /g/mine
} <&- &
exec "$python" "$watcher" /g /g/sub /r /app.conf /g/watched
"""


OWN = ["CREATE own", "MODIFY own", "CLOSE_WRITE own", "MOVED_FROM own", "MOVED_TO mine", "ATTRIB mine", "DELETE mine"]
"""What the guest itself does is told once, by its own kernel."""


def test_every_kind_of_change(me: Caller) -> None:
    """In a directory, in one that may only be read, of a single file; no file of the host is touched by it."""
    host, other, single = me.make("host", FILES), me.make("other", {"file": ""}), me.make("single", {"app.conf": "one"})
    mounts = [f"/g={host}:notify:hide=*.o", f"/r={other}:ro:notify", f"/app.conf={single}/app.conf:notify"]
    words = [word for mount in mounts for word in ("--mount", mount)]
    with me.started(*words, "--", "sh", "-c", SCRIPT, "sh", me.python, WATCHER) as process:
        watcher = Watcher(process)
        check_steps(watcher, host, "/g")
        (host / "sub" / "inner").write_text("below")
        watcher.until("/g/sub MODIFY inner", "/g/sub CLOSE_WRITE inner")
        (host / "hidden.o").touch()
        (host / "watched").unlink()
        assert not any("hidden" in line for line in watcher.until("/g/watched DELETE_SELF", "/g DELETE watched"))
        (other / "file").write_text("x")
        watcher.until("/r MODIFY file")
        (single / "next").write_text("another")
        (single / "next").rename(single / "app.conf")
        watcher.until("/app.conf MODIFY")
        before = state(host)
        (other / "last").touch()
        watcher.until("/r CREATE last", "/r CLOSE_WRITE last")
        assert state(host) == before
        (host / "go").touch()
        lines = watcher.until("/g DELETE mine")  # its own events may come before the host's, by the announcer
        assert [line.removeprefix("/g ") for line in lines if not line.endswith(" go")] == OWN
        process.communicate(timeout=BOUND)


BUILD = r"""
cd /g || exit
printf 'out: in\n\t@cat in > out && echo built >&2 && cat out\n' >/tmp/Makefile
echo in | "$1" -n -r make -s -f /tmp/Makefile out
"""
OBSERVER = r"""
import sys
from watchdog.events import FileSystemEventHandler
from watchdog.observers import Observer
class Printer(FileSystemEventHandler):
    def on_any_event(self, event):
        print(event.event_type, event.src_path, flush=True)
observer = Observer()
observer.schedule(Printer(), "/g", recursive=True)
observer.start()
print("ready", flush=True)
sys.stdin.read()
"""
NODE = (
    "require('fs').watch('/g', (kind, name) => console.log(kind, name)); console.log('ready'); process.stdin.resume()"
)


@pytest.mark.slow
@pytest.mark.parametrize("tool", ["watchdog", "node", "entr"])
def test_real_watchers(me: Caller, tool: str) -> None:
    """A Python, a Node and a make-based one hear of an editor's save."""
    host = me.make("host", {"in": "first\n", "sub/inner": ""})
    program = sys.executable if tool == "watchdog" else needs.program(tool)
    commands = {
        "watchdog": [program, "-u", "-c", OBSERVER],
        "node": [program, "-e", NODE],
        "entr": ["sh", "-c", BUILD, "sh", program],
    }
    heard = {"watchdog": "moved /g/.in.new", "node": "rename in", "entr": "saved"}
    with me.started("--mount", f"/g={host}:notify", "--", *commands[tool]) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == (b"first\n" if tool == "entr" else b"ready\n")
        (host / ".in.new").write_text("saved\n")
        (host / ".in.new").rename(host / "in")
        while (line := process.stdout.readline().decode().strip()) != heard[tool]:
            assert line
        process.kill()
