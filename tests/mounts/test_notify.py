"""`uml mount -o notify`: what others change in the source wakes programs that watch the mount."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.announcements import FILES, WATCHER, Watcher, check_steps
from tests.mounts.conftest import Mount
from tests.mounts.server import UML


def test_every_kind_of_change(tmp_path: Path, mount: Mount) -> None:
    source = tmp_path / "source"
    for name, text in FILES.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(text)
    seen = mount(source, "notify")
    words = [sys.executable, str(WATCHER), str(seen), str(seen / "watched")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        watcher = Watcher(process)
        check_steps(watcher, source, str(seen))
        (source / "watched").unlink()
        watcher.until(f"{seen}/watched DELETE_SELF", f"{seen} DELETE watched")
        (seen / "own").write_text("x")
        (source / "last").touch()
        lines = watcher.until(f"{seen} CREATE last")
        assert [line for line in lines if line.endswith("own")] == [
            f"{seen} {event} own" for event in ("CREATE", "MODIFY", "CLOSE_WRITE")
        ]
        process.communicate()


@pytest.mark.parametrize(
    ("options", "why"),
    [("notify,ro", "announces nothing in a read-only mount"), ("notify,cache=always", "goes not with cache=always")],
)
def test_refused(tmp_path: Path, options: str, why: str) -> None:
    (tmp_path / "to").mkdir()
    words = [*UML, "mount", str(tmp_path), str(tmp_path / "to"), "-o", options]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 2
    assert why in done.stderr
