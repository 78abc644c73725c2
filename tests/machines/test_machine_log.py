"""A machine's log: the last of what was said, however much that was."""

from __future__ import annotations

from pathlib import Path

from runtime.machines.machine_log import MOST, LogFile


def test_the_last_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = LogFile(path)
    log.write(b"first\n")
    assert path.read_bytes() == b"first\n"
    line = b"x" * 999 + b"\n"
    for _ in range(3 * MOST // len(line)):
        log.write(line)
        assert path.stat().st_size <= MOST
    log.write(b"last\n")
    log.write(b"y" * 3 * MOST)
    log.close()
    content = path.read_bytes()
    assert b"first" not in content
    assert content.startswith(line)
    assert content.endswith(b"last\n" + b"y" * (MOST // 2))
