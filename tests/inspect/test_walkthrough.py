"""The walk-through of docs/inspect.md, run as it stands there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.appliance.client import end_kept
from tests.appliance.images import make_tree
from tests.ordinary import ROOT
from umlfs.sources import parse

pytestmark = pytest.mark.guest

LINES = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_it_does_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, short_directory: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short_directory))
    monkeypatch.chdir(tmp_path)
    make_tree(tmp_path / "tree")
    found = LINES.search((ROOT / "docs/inspect.md").read_text())
    assert found is not None
    program = [sys.executable, "-P", "-c", "from runtime.cli import main; main()"]
    script = f'set -e; uml() {{ {shlex.join(program)} "$@"; }}\n{found[1]}'
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
    try:
        done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, env=environment, check=False)
    finally:
        end_kept(parse("disk.img"))
    assert (done.returncode, done.stderr) == (0, "")
    for line in (
        "  system      Debian GNU/Linux 12 (bookworm)",
        'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"',
        "+ /etc/sshd.conf",
        "    ├── data",
    ):
        assert line in done.stdout.splitlines()
