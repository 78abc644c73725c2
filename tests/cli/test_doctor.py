from __future__ import annotations

import json

import pytest

from runtime import cli
from runtime.doctor.check import Check

GOOD = Check("kernel", True, True, "/usr/bin/linux.uml", "guests")
NICE = Check("/dev/fuse", False, False, "closed\x1b", "mounts", "chmod 666 /dev/fuse")
BAD = Check("busybox", False, True, "not there", "the first program", "apt-get install busybox-static")


@pytest.mark.parametrize(("checks", "status"), [([GOOD], 0), ([GOOD, NICE], 0), ([GOOD, NICE, BAD], 1)])
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_exit_status_says_whether_guests_can_run(
    monkeypatch: pytest.MonkeyPatch, checks: list[Check], status: int, options: list[str]
) -> None:
    monkeypatch.setattr("runtime.doctor.checks.diagnose", lambda kernel: checks)
    assert cli.invoke(["doctor", *options]) == status


def test_a_line_each(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("runtime.doctor.checks.diagnose", lambda kernel: [GOOD, NICE])
    cli.invoke(["doctor"])
    assert capsys.readouterr().out == (
        "ok       kernel            /usr/bin/linux.uml; for guests\n"
        "missing  /dev/fuse         closed\\x1b; for mounts; mend: chmod 666 /dev/fuse\n"
    )


def test_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("runtime.doctor.checks.diagnose", lambda kernel: [NICE, BAD])
    cli.invoke(["doctor", "--json"])
    answer = json.loads(capsys.readouterr().out)
    assert answer["ok"] is False
    assert [check["name"] for check in answer["checks"]] == ["/dev/fuse", "busybox"]
    assert answer["checks"][0]["mend"] == "chmod 666 /dev/fuse"


def test_kernel_option_names_the_kernel(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.invoke(["doctor", "--kernel", "/nonexistent/linux"]) == 1
    assert "/nonexistent/linux" in capsys.readouterr().out
