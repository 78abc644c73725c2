"""What a report of a fault has in it, and what not; mending asks first."""

from __future__ import annotations

import json

import pytest

from runtime.cli import invoke
from runtime.cli.bug_report import _without_names
from runtime.doctor.check import Check


def test_a_report_has_versions_and_checks(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["bug-report"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["versions"]["umlfs"]
    assert {"kernel", "busybox"} & {check["name"] for check in report["checks"]}


def test_who_and_where_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setenv("USER", "somebody")
    assert _without_names("/home/somebody/x of somebody") == "~/x of USER"


def test_mending_needs_somebody_to_ask(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    lacking = [Check("x", False, True, "nothing", "tests", "touch /nowhere/x")]
    monkeypatch.setattr("runtime.doctor.checks.diagnose", lambda kernel: lacking)
    status = invoke(["doctor", "--fix"])
    captured = capsys.readouterr()
    assert status == 2
    assert "asks before each command" in captured.err
