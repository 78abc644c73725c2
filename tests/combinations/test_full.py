"""A disk without room, under whatever a command writes: the error names the file, and nothing is left."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import needs
from tests.ordinary import ROOT

LONG = 120
SCRIPT = """\
mount -t tmpfs -o size=1M full "$1"
cd "$1"
head -c 2M /dev/zero >fill 2>/dev/null || :
shift
if "$@" >/dev/null 2>"$OLDPWD/errors"; then status=0; else status=$?; fi
echo "$status $(cat "$OLDPWD/errors")"
find . -type f ! -size 0
"""
"""In a mount namespace of its own, which takes the filesystem with it. HOME and XDG_RUNTIME_DIR are the full disk."""
COMMANDS = {
    "boot -d umid=it mem=64M": (1, ".uml/it"),
    "cow create new.cow ../base.img": (1, "new.cow"),
    "image create --format qcow2 new.qcow2 10M": (1, "full"),
    "image convert ../base.img new.qcow2": (1, "new.qcow2"),
    "image convert ../tree new.img": (1, "new.img"),
    "image convert ../tree squashfs:new": (1, "full"),
    "cp ../tree/file new": (1, "new"),
}


@pytest.mark.guest
@pytest.mark.parametrize("words", COMMANDS)
def test_a_command(words: str, tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/file").write_bytes(os.urandom(1 << 20))
    (tmp_path / "base.img").write_bytes(bytes(1 << 20))
    program = [sys.executable, "-P", "-c", "from runtime.cli import main; main()", *words.split()]
    command: list[str | Path] = [*needs.mount_namespace(), "sh", "-ec", SCRIPT, "sh", full, *program]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(full), "XDG_RUNTIME_DIR": str(full)}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LONG
    )
    assert done.stderr == ""
    said, *left = done.stdout.splitlines()
    status, named = COMMANDS[words]
    assert said.startswith(f"{status} uml: ")
    assert named in said.partition(": No space left on device")[0]
    assert ": No space left on device" in said
    assert left == ["./fill"]
