"""`append` as a shell meets it, in a mount."""

from __future__ import annotations

import errno
import mmap
import os
import subprocess
from pathlib import Path

from tests.contract.subject import failing
from tests.mounts.conftest import Mount


def test_what_a_shell_writes_goes_to_the_end(mount: Mount, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    host = source / "log"
    host.write_text("one\n")
    place = mount(source, "append")
    with open(place / "log", "a") as log:
        host.write_text("one\ntwo\n")  # what is appended behind its back is not overwritten
        log.write("three\n")
    subprocess.run(["sh", "-c", "cat log; echo four > log; echo five >> log; cat log > copy"], cwd=place, check=True)
    subprocess.run(["sh", "-c", ": > log; cp copy log"], cwd=place, check=True)
    lines = "one\ntwo\nthree\nfour\nfive\n"
    assert (place / "copy").read_text() == lines
    assert host.read_text() == (place / "log").read_text() == lines * 2
    assert os.stat(place / "log").st_size == 2 * len(lines)
    with open(place / "log", "r+b") as log, failing(errno.ENODEV):
        mmap.mmap(log.fileno(), 4)
    refused = subprocess.run(["rm", "-f", "log"], cwd=place, capture_output=True, text=True, check=False)
    assert refused.returncode
    assert "Operation not permitted" in refused.stderr
