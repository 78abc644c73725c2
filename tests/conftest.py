"""What holds for every test: the long forms only on request, no unexpected warning in our logs, nothing left behind."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import resource
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from runtime.host.suite import FAILED_CHECKS
from tests import needs, real_root
from tests.ordinary import OrdinaryUser, ordinary_user

LOGGERS = ("umlfs", "hostfs", "humfs", "runtime")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the slow tests too, and the long form of the others")


def pytest_configure(config: pytest.Config) -> None:
    real_root.enter()
    # Some open a thousand files, and so must servers that they start; logins often allow 1,024.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 20000)), hard))
    # A shell's background jobs ignore it, and so would all that they start.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Else the newest kernel that somebody has would be taken: what is tested is the distribution's, or the named one.
    if own := shutil.which("linux.uml"):
        os.environ.setdefault("UML_KERNEL", own)
    profile = "long" if config.getoption("--long") else "short"
    examples = {"short": 50, "long": 2000}[profile]
    hypothesis.settings.register_profile(profile, max_examples=examples, deadline=None, **_repeatability())
    hypothesis.settings.load_profile(profile)


def _repeatability() -> dict[str, Any]:
    """In CI every run tries the same examples; elsewhere those that failed are kept for the next run, in a checkout of
    one's own."""
    if os.environ.get("CI"):
        return {"derandomize": True, "database": None}
    return {} if Path(__file__).stat().st_uid == os.geteuid() else {"database": None}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the slow tests out, unless --long asks for them."""
    if config.getoption("--long"):
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    config.hook.pytest_deselected(items=slow)
    items[:] = [item for item in items if item not in slow]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Repeat which checks failed before pytest: they have scrolled away."""
    if failed := os.environ.get(FAILED_CHECKS):
        terminalreporter.section("failed before the tests", red=True)
        terminalreporter.line(failed)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """A failed check fails the run."""
    if os.environ.get(FAILED_CHECKS) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """A test that is marked `real_root` needs that; one marked `mapped_root` runs as root of a user namespace if we are
    an ordinary user."""
    if pyfuncitem.get_closest_marker("real_root"):
        needs.root()
    if os.geteuid() == 0 or not pyfuncitem.get_closest_marker("mapped_root"):
        return None
    options = ["--long"] if pyfuncitem.config.getoption("--long") else []
    with tempfile.TemporaryDirectory(prefix="uml-mapped-", dir="/tmp") as directory:
        needs.mapped_root(pyfuncitem.nodeid, options, Path(directory))
    return True


@pytest.fixture
def long(request: pytest.FixtureRequest) -> bool:
    """Whether to run the long form of a test."""
    return bool(request.config.getoption("--long"))


@pytest.fixture(scope="session")
def user() -> Iterator[OrdinaryUser]:
    """An ordinary user, to run commands as; created (and removed at the end) where the tests run as root."""
    with ordinary_user() as somebody:
        yield somebody


@pytest.fixture(scope="session")
def short_directory() -> Iterator[Path]:
    """Where paths are short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="u") as place:
        yield Path(place)


class _Records(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.name}: {record.getMessage()}")


@pytest.fixture(autouse=True)
def no_unexpected_warnings(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test in which our code logs a warning or worse, unless it is marked `logs_warnings`."""
    records = _Records()
    for name in LOGGERS:
        logging.getLogger(name).addHandler(records)
    yield
    for name in LOGGERS:
        logging.getLogger(name).removeHandler(records)
    if records.lines and not request.node.get_closest_marker("logs_warnings"):
        pytest.fail("unexpected in the log:\n" + "\n".join(records.lines))


def _descriptors() -> dict[str, str]:
    found = {}
    for number in os.listdir("/proc/self/fd"):
        # The one that listed the directory is closed by now.
        with contextlib.suppress(FileNotFoundError):
            found[number] = os.readlink(f"/proc/self/fd/{number}")
    return found


def _children() -> set[str]:
    found: set[str] = set()
    for task in os.listdir("/proc/self/task"):
        # A thread may end meanwhile, as pytest's watchdog of the test before does; its children pass to the others.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found.update(Path(f"/proc/self/task/{task}/children").read_text().split())
    return found


@pytest.fixture(autouse=True)
def nothing_left_behind(no_unexpected_warnings: None) -> Iterator[None]:
    """Fail a test that leaves a file descriptor open or a child process alive (or not waited for)."""
    descriptors, children = _descriptors(), _children()
    yield
    if set(_descriptors()) - set(descriptors):
        gc.collect()
    left = [f"fd {fd} -> {to}" for fd, to in _descriptors().items() if fd not in descriptors]
    left += [f"process {pid}" for pid in _children() - children]
    if left:
        pytest.fail("left behind:\n" + "\n".join(left))
