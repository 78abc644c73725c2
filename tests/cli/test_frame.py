"""The frame around every command: what a failure prints, and the exit status."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import click
import pytest

from runtime import cli
from tests import needs
from tests.ordinary import ROOT
from umlfs.errors import UmlError, UsageError

Define = Callable[[Callable[[], object]], None]


@pytest.fixture
def define(monkeypatch: pytest.MonkeyPatch) -> Define:
    """Make a function the callback of the command `uml probe`."""

    def define(callback: Callable[[], object]) -> None:
        module = ModuleType("probe")
        vars(module)["command"] = click.Command("probe", callback=callback, help="A probe.")
        monkeypatch.setitem(sys.modules, "probe", module)
        monkeypatch.setitem(cli.COMMANDS, "probe", "probe")

    return define


def raising(error: BaseException) -> Callable[[], object]:
    def callback() -> object:
        raise error

    return callback


@pytest.mark.parametrize(("returned", "status"), [(None, 0), (0, 0), (3, 3), (130, 130)])
def test_the_returned_number_is_the_exit_status(define: Define, returned: object, status: int) -> None:
    define(lambda: returned)
    assert cli.invoke(["probe"]) == status


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (UmlError("no kernel", "install one"), 1, "uml: no kernel; install one\n"),
        (UsageError("--mem 3: too small"), 2, "uml: --mem 3: too small\n"),
        (FileNotFoundError(2, "No such file or directory", "/a"), 1, "uml: /a: No such file or directory\n"),
        (
            OSError(18, "Invalid cross-device link", b"/\xff", None, b"/b"),
            1,
            r"uml: /\xff -> /b: Invalid cross-device link",
        ),
        (click.ClickException("Some thing."), 1, "uml: some thing\n"),
        (UmlError("guest says \x1b[2J"), 1, "uml: guest says \\x1b[2J\n"),
        (UmlError("a\nb: not there"), 1, "uml: a\\nb: not there\n"),
        (ExceptionGroup("nursery", [ExceptionGroup("inner", [UmlError("panic")])]), 1, "uml: panic\n"),
        (ExceptionGroup("nursery", [OSError(32, "Broken pipe"), UmlError("panic")]), 1, "uml: panic\n"),
        (ModuleNotFoundError("No module named 'x'"), 1, "uml: No module named 'x'; the installation is incomplete"),
        (ValueError("odd"), 1, "uml: internal error: ValueError: odd"),
    ],
)
def test_a_failure_is_one_line(
    define: Define, capsys: pytest.CaptureFixture[str], error: Exception, status: int, line: str
) -> None:
    define(raising(error))
    assert cli.invoke(["probe"]) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(line)
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), BaseExceptionGroup("n", [KeyboardInterrupt(), ValueError("late")])]
)
def test_an_interrupt_is_quiet(define: Define, capsys: pytest.CaptureFixture[str], error: BaseException) -> None:
    define(raising(error))
    assert cli.invoke(["probe"]) == 130
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("asked", ["option", "environment"])
def test_debug_shows_where(
    define: Define, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    define(raising(ValueError("odd")))
    args = ["probe"]
    if asked == "option":
        args.insert(0, "--debug")
    else:
        monkeypatch.setenv("UML_DEBUG", "1")
    assert cli.invoke(args) == 1
    err = capsys.readouterr().err
    assert "Traceback (most recent call last)" in err
    assert "in callback" in err


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["tset"], "uml: tset: no such command; did you mean 'test'?\n"),
        (["xyzzy"], "uml: xyzzy: no such command; 'uml --help' lists all of them\n"),
        (["--nonsense"], "uml: no such option"),
        (["probe", "--nonsense"], "uml: no such option"),
        (["probe", "word"], "uml: got unexpected extra argument (word); try 'uml probe --help'\n"),
    ],
)
def test_wrong_usage_is_one_line_with_a_hint(
    define: Define, capsys: pytest.CaptureFixture[str], args: list[str], says: str
) -> None:
    define(lambda: 0)
    assert cli.invoke(args) == 2
    err = capsys.readouterr().err
    assert err.startswith(says)
    assert err.count("\n") == 1


def test_no_arguments_show_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.invoke([]) == 2
    assert "Commands:" in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.invoke(["--version"]) == 0
    assert capsys.readouterr().out.startswith("uml ")


UML = [sys.executable, "-c", "from runtime.cli import main; main()"]


def test_a_reader_that_goes_away_is_no_error() -> None:
    script = (
        "import sys, time, click, types; from runtime import cli\n"
        "def callback():\n    while True: print('y' * 1000)\n"
        "sys.modules['probe'] = m = types.ModuleType('probe'); m.command = click.Command('probe', callback=callback)\n"
        "cli.COMMANDS['probe'] = 'probe'; sys.argv[1:] = ['probe']; cli.main()\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 141


def test_a_disk_that_is_full_in_the_middle() -> None:
    script = (
        "import sys, click, types; from runtime import cli\n"
        "def callback():\n    while True: print('y' * 1000)\n"
        "sys.modules['probe'] = m = types.ModuleType('probe'); m.command = click.Command('probe', callback=callback)\n"
        "cli.COMMANDS['probe'] = 'probe'; sys.argv[1:] = ['probe']; cli.main()\n"
    )
    with open("/dev/full", "wb") as full:
        command = [sys.executable, "-c", script]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (1, b"uml: standard output: No space left on device\n")


def test_contents_onto_a_full_disk(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with open("/dev/full", "wb") as full:
        command = [*UML, "cat", f"{tmp_path}:/file"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (1, b"uml: standard output: No space left on device\n")


def test_the_frame_imports_little() -> None:
    heavy = {
        "click",
        "typing",
        "json",
        "trio",
        "rich",
        "sqlite_utils",
        "pyfuse3",
        "psutil",
        "importlib.metadata",
        "logging",
        "asyncio",
    }
    code = "import sys, runtime.cli; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert heavy.isdisjoint(loaded)


@pytest.mark.parametrize(
    ("redirection", "status", "err"),
    [
        (">/dev/full", 1, "uml: standard output: No space left on device\n"),
        (">&-", 0, ""),
        ("<&- >/dev/null", 0, ""),
        (">/dev/null 2>&-", 0, ""),
    ],
)
def test_odd_standard_descriptors(redirection: str, status: int, err: str) -> None:
    script = f'exec "$0" -c "from runtime.cli import main; main()" --version {redirection}'
    command = ["sh", "-c", script, sys.executable]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (status, "", err)


def test_closed_standard_descriptors_are_not_given_away() -> None:
    """The first file that a command opens must not become its standard output."""
    code = "import os; from runtime import cli; cli.open_standard_descriptors(); print(os.open('/', os.O_RDONLY))"
    closing = ["sh", "-c", 'exec "$0" -c "$1" 2>&-', sys.executable, code]
    assert int(subprocess.check_output(closing)) > 2


def test_a_host_without_proc(tmp_path: Path) -> None:
    """Every command says so, and what mends it."""
    script = """\
mount --rbind / "$1" && mount -t tmpfs none "$1/proc" || exit
shift
exec chroot "$@"
"""
    program = [sys.executable, "-P", "-c", "from runtime.cli import main; main()"]
    for words, status in (("run -- true", 125), ("ls /", 1), ("ps", 1), ("doctor", 1), ("help", 0)):
        inside = ["env", f"PYTHONPATH={ROOT}", *program, *words.split()]
        line = [*needs.mount_namespace(), "sh", "-c", script, "sh", str(tmp_path), str(tmp_path), *inside]
        done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == status, done
        if words == "doctor":
            assert "missing  /proc " in done.stdout
            assert "mount -t proc proc /proc" in done.stdout
        elif status:
            assert done.stderr == (
                "uml: no /proc is mounted here, by which uml finds its own files and processes; "
                "mount it: mount -t proc proc /proc\n"
            )
