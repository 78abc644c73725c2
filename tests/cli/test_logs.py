"""`uml logs` shows lines, and no byte of a guest's that drives the terminal."""

from __future__ import annotations

import pytest

from runtime.cli.logs import _print


@pytest.mark.parametrize(
    ("pieces", "shown"),
    [
        ([b"one\r\ntwo\r\n"], "one\ntwo\n"),
        ([b"one\r", b"\ntwo"], "one\ntwo"),
        ([b"\rThe system is going down NOW!\r\n\rSent SIGTERM\r\n"], "The system is going down NOW!\nSent SIGTERM\n"),
        ([b"10%\r20%\n"], "10%\\r20%\n"),
        ([b"\x1b[2Jgone\n"], "\\x1b[2Jgone\n"),
    ],
)
def test_lines(pieces: list[bytes], shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    for piece in pieces:
        _print(piece)
    assert capsys.readouterr().out == shown
