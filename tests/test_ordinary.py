from __future__ import annotations

import json

from tests.ordinary import OrdinaryUser


def test_is_unprivileged(user: OrdinaryUser) -> None:
    script = "id -u; pwd; grep CapEff /proc/self/status; mkdir mine && touch mine/file && ls mine && rm -r mine"
    done = user.run(user.command("sh", "-c", script))
    assert done.stdout.split() == [str(user.uid), str(user.home), "CapEff:", "0" * 16, "file"]
    assert user.uid != 0


def test_may_run_guests(user: OrdinaryUser) -> None:
    done = user.run(user.uml("doctor", "--json"))
    assert done.stderr == ""
    checks = json.loads(done.stdout)["checks"]
    assert [check for check in checks if check["required"] and not check["ok"]] == []
    assert done.returncode == 0
