"""The plugin of docs/externfs.md, as it stands there: in this process, mounted on the host, and in a guest."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import needs
from tests.externfs.driver import Driver, refused
from umlfs.sources import OpenOptions

ROOT = Path(__file__).parents[2]
UML = (sys.executable, "-c", "from runtime.cli import main; main()")


def plugin() -> str:
    """The Python code of the page."""
    found = re.findall(r"```python\n(.*?)```", (ROOT / "docs/externfs.md").read_text(), re.DOTALL)
    return str(found[-1])


@pytest.fixture
def installed(tmp_path: Path) -> dict[str, str]:
    """An environment in which the plugin is installed."""
    place = tmp_path / "site"
    info = place / "todo-1.dist-info"
    info.mkdir(parents=True)
    (place / "todo.py").write_text(plugin())
    (info / "entry_points.txt").write_text("[umlfs.sources]\ntodo = todo:kind\n")
    (tmp_path / "list.txt").write_text("milk: two litres\nbread: rye\n")
    return {**os.environ, "PYTHONPATH": f"{place}:{ROOT}"}


def test_it_has_few_lines() -> None:
    assert len([line for line in plugin().splitlines() if line.strip()]) <= 50


async def test_in_this_process(tmp_path: Path) -> None:
    names: dict[str, object] = {"__name__": "todo"}
    exec(plugin(), names)
    path = tmp_path / "list.txt"
    path.write_text("milk: two litres\n")
    filesystem = await names["kind"].open(f"{path},rw", OpenOptions())  # type: ignore[attr-defined]
    tree = Driver(filesystem)
    assert await tree.cat("milk") == b"two litres\n"
    assert (await tree.stat("milk")).size == 11
    await tree.put("eggs", b"six")
    with refused(errno.EINVAL):
        await tree.put("eggs", b"six\nor seven")
    await tree.rm("milk")
    with refused(errno.ENOENT):
        await tree.cat("milk")
    await filesystem.close()
    assert path.read_text() == "eggs: six\n"


def test_on_the_host(installed: dict[str, str], tmp_path: Path) -> None:
    needs.path("/dev/fuse", "chmod 666 /dev/fuse, or run the tests as root")
    (tmp_path / "todo").mkdir()

    def uml(*words: str) -> str:
        done = subprocess.run([*UML, *words], env=installed, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "a TODO list" in uml("sources", "todo")
    assert uml("ls", "todo:list.txt") == "bread\nmilk\n"
    uml("mount", "todo:list.txt,rw", "todo")
    try:
        assert (tmp_path / "todo/milk").read_text() == "two litres\n"
        (tmp_path / "todo/eggs").write_text("six\n")
        (tmp_path / "todo/bread").unlink()
    finally:
        uml("umount", "todo")
    assert (tmp_path / "list.txt").read_text() == "milk: two litres\neggs: six\n"


@pytest.mark.guest
def test_in_a_guest(installed: dict[str, str], tmp_path: Path) -> None:
    script = "cat /todo/milk && echo six >/todo/eggs && rm /todo/bread && ls /todo"
    words = ["run", "--mount", "/todo=todo:list.txt,rw", "--", "sh", "-c", script]
    done = subprocess.run([*UML, *words], env=installed, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "two litres\neggs\nmilk\n"), done.stderr
    assert (tmp_path / "list.txt").read_text() == "milk: two litres\neggs: six\n"
