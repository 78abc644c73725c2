"""What `uml boot` says without booting."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from runtime.cli.boot import command
from runtime.kernels.kernel import find_kernel


@pytest.mark.parametrize(
    ("option", "text"),
    [("--kernel-help", "umid=<name>"), ("--showconfig", "CONFIG_UML=y"), ("--version", "linux {version} (")],
)
def test_of_the_kernel(option: str, text: str) -> None:
    done = CliRunner().invoke(command, [option])
    assert done.exit_code == 0
    assert text.format(version=find_kernel().version) in done.output
