"""The host changes what a guest holds, and the guest sees it after the time that was promised: no sooner need it, but
no later may it."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests.guest.caller import BOUND, Caller

pytestmark = pytest.mark.guest

LIFETIME = 1.0
"""Seconds that a guest may believe what it was told, with `cache=auto`."""
SLACK = 3.0
"""Seconds that a busy machine may take to write all files once, and to answer."""
FILES = 6
PAGE = 4096
SECONDS = 6.0

READER = """
import os, sys, time

print(time.time(), flush=True)
end = time.monotonic() + float(sys.argv[1])
held = {place: open(f"/{place}/held") for place in ("auto", "never")}
worst = dict.fromkeys(held, 0.0)
while time.monotonic() < end:
    for place in held:
        for name in os.listdir(f"/{place}"):
            if name == "held" or name == "next":
                continue
            began = time.time()
            try:
                with open(f"/{place}/{name}") as file:
                    content = file.read()
            except (FileNotFoundError, OSError):
                continue
            for word in set(content.split()):
                if len(word) == 20:
                    worst[place] = max(worst[place], began - int(word) / 1e9)
for place, file in held.items():
    file.seek(0)
    print(place, worst[place], file.read(), flush=True)
for line in sys.stdin:
    try:
        with open(line.strip()) as file:
            print(file.read(), os.path.getsize(line.strip()), flush=True)
    except FileNotFoundError:
        print("none", flush=True)
"""


def rewrite(directory: Path, index: int, turn: int) -> None:
    """Overwrite, replace, remove and cut: the time of writing fills two pages, in words of 20 digits."""
    path = directory / str(index)
    content = (f"{time.time_ns():020} " * (2 * PAGE // 21)).encode()
    if turn % 4 == 0:
        (directory / "next").write_bytes(content)
        os.rename(directory / "next", path)
    elif turn % 4 == 1:
        path.unlink()
        path.write_bytes(content)
    elif turn % 4 == 2:
        os.truncate(path, PAGE)
        path.write_bytes(content)
    else:
        with path.open("r+b") as file:
            file.write(content)


def ask(process: subprocess.Popen[bytes], path: str) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(path.encode() + b"\n")
    process.stdin.flush()
    return process.stdout.readline().decode().strip()


def soon(process: subprocess.Popen[bytes], path: str, expected: str, within: float) -> None:
    end = time.monotonic() + within
    while (found := ask(process, path)) != expected:
        assert time.monotonic() < end, found


def changes(process: subprocess.Popen[bytes], host: Path, seen: str, within: float) -> None:
    """One change after the other, each of them seen in time."""
    path = host / "one"
    path.write_text("1")
    soon(process, f"{seen}/one", "1 1", within)
    path.write_text("22")
    soon(process, f"{seen}/one", "22 2", within)
    (host / "other").write_text("333")
    os.rename(host / "other", path)
    soon(process, f"{seen}/one", "333 3", within)
    os.truncate(path, 1)
    soon(process, f"{seen}/one", "3 1", within)
    os.rename(path, host / "moved")
    soon(process, f"{seen}/one", "none", within)
    soon(process, f"{seen}/moved", "3 1", within)
    (host / "moved").unlink()
    soon(process, f"{seen}/moved", "none", within)


def test_what_a_guest_sees(me: Caller) -> None:
    """Under load, while files are held open; then one change after the other."""
    host = me.make("host", {"held": "held", **{str(index): "" for index in range(FILES)}})
    mounts = ["--mount", f"/auto={host}", "--mount", f"/never={host}:cache=never"]
    mounts += ["--mount", f"/always={host}:cache=always"]
    ended = threading.Event()

    def change() -> None:
        turn = 0
        while not ended.is_set():
            for index in range(FILES):
                rewrite(host, index, turn)
            turn += 1
            ended.wait(0.01)  # leaves the processor to the readers

    changing = threading.Thread(target=change)
    with me.started(*mounts, "--", me.python, "-c", READER, str(SECONDS)) as process:
        changing.start()
        try:
            assert process.stdout is not None
            # The guest's clock is the host's as of its boot: how far it is behind, at most.
            behind = time.time() - float(process.stdout.readline())
            told = {}
            for _ in range(2):
                place, worst, held = process.stdout.readline().decode().split()
                told[place] = float(worst) + behind, held
        finally:
            ended.set()
            changing.join()
        assert told["never"][0] < SLACK
        assert told["auto"][0] < LIFETIME + SLACK
        assert {held for _, held in told.values()} == {"held"}
        changes(process, host, "/auto", LIFETIME + SLACK)
        changes(process, host, "/never", SLACK)
        assert ask(process, "/always/held") == "held 4"
        (host / "held").write_text("changed")
        soon(process, "/never/held", "changed 7", SLACK)
        assert ask(process, "/always/held") == "held 4"
        process.communicate(timeout=BOUND)
        assert process.returncode == 0
