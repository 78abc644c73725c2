"""The table of what differs between kernels."""

from __future__ import annotations

import json
from pathlib import Path

from runtime.kernels.kernel import system_kernel
from tests.kernels.outcomes import BEGIN, DATA, END, PAGE, Outcomes, outcomes_in, table, with_report, written

REPORT = """\
<testsuites><testsuite>
<testcase classname="tests.guest.test_one" name="test_a[as we are]" />
<testcase classname="tests.guest.test_one" name="test_b"><failure message="no">why</failure></testcase>
<testcase classname="tests.guest.test_one" name="test_c" />
<testcase classname="tests.guest.test_one" name="test_c"><error message="left behind" /></testcase>
</testsuite></testsuites>
"""


def test_the_page_has_it() -> None:
    page = PAGE.read_text()
    assert written(page, table(json.loads(DATA.read_text()))) == page, "run: python -m tests.kernels.outcomes"


def test_a_report() -> None:
    tests = {"test_a[as we are]": "pass", "test_b": "fail", "test_c": "fail"}
    assert outcomes_in(REPORT) == {"tests/guest/test_one.py": tests}
    version = system_kernel().version
    known = with_report({version: {}, "7.9": {}}, "system", REPORT)
    assert known[version]["tests"] == {"tests/guest/test_one.py": tests}
    assert "virtio-fs" in known[version]["abilities"]


def test_a_table(tmp_path: Path) -> None:
    file = tmp_path / "tests/guest/test_one.py"
    file.parent.mkdir(parents=True)
    file.write_text('"""Ones: all of\nthem."""\n')
    ran = {"tests/guest/test_one.py": {"test_a": "pass", "test_b[x]": "fail", "test_b[y]": "fail"}}
    known: Outcomes = {
        "7.2": {"abilities": {"same": "yes", "other": "no"}, "tests": ran},
        "6.12": {"abilities": {"same": "yes", "other": "module"}, "tests": {}},
    }
    assert table(known, tmp_path) == (
        "|  | 6.12 | 7.2 |\n"
        "| --- | --- | --- |\n"
        "| other | module | no |\n"
        "| Ones ([test_one.py](../tests/guest/test_one.py)) | not run | 1 pass, `test_b` fails |\n"
    )
    assert written(f"a\n{BEGIN}\nold\n{END}\nb\n", "new\n") == f"a\n{BEGIN}\n\nnew\n\n{END}\nb\n"
