"""The filesystem of docs/filesystems.md, installed as the page says: on the host, and in a guest."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mounts.server import UML, mounted

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/filesystems.md"


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A source of the example."""
    site = tmp_path / "site"
    (site / "notes-1.dist-info").mkdir(parents=True)
    text = PAGE.read_text()
    for name, language in (("notes.py", "python"), ("notes-1.dist-info/entry_points.txt", "toml")):
        (block,) = re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        (site / name).write_text(
            block.replace("project.entry-points.", "").replace('"', "") if language == "toml" else block
        )
    monkeypatch.setenv("PYTHONPATH", f"{site}:{ROOT}")
    return "notes:hello"


def test_on_the_host(notes: str, tmp_path: Path) -> None:
    place = tmp_path / "mnt"
    place.mkdir()
    with mounted(notes, place):
        assert (place / "first").read_text() == "hello\n"
        (place / "second").write_text("more\n" * 10_000)
        assert sorted(os.listdir(place)) == ["first", "second"]
        assert (place / "second").read_text() == "more\n" * 10_000
        with open(place / "first", "r+b") as file:
            (place / "first").unlink()
            file.seek(3)
            file.write(b"p")
            file.truncate()
            file.seek(0)
            assert file.read() == b"help"
            assert os.fstat(file.fileno()).st_nlink == 0
        assert os.listdir(place) == ["second"]
        with pytest.raises(OSError, match=os.strerror(errno.ENOSYS)):
            (place / "directory").mkdir()


@pytest.mark.guest
def test_in_a_guest(notes: str) -> None:
    script = (
        "cd /mnt/notes; cat first; echo more >second; echo even more >>second; cat second; rm first; ls; df . | wc -l"
    )
    done = subprocess.run(
        [*UML, "run", "--mount", f"/mnt/notes={notes}", "--", "sh", "-c", f"mkdir -p /mnt/notes; {script}"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "hello\nmore\neven more\nsecond\n2\n"


def test_the_page_keeps_its_promise_of_a_page(notes: str) -> None:
    """It is read in one go, and it runs with nothing but what the page imports."""
    (block,) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(block.splitlines()) <= 140
    subprocess.run([sys.executable, "-c", "import notes"], check=True, stdin=subprocess.DEVNULL)
