"""The script ./uml: what it installs, when, and that the command never notices. apt, pip and Python are played here."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import needs

ROOT = Path(__file__).resolve().parent.parent
PYTHON = """#!/bin/sh
# Plays .venv/bin/python: pip notes how it was called, the uml command shows its arguments and input.
here=$(dirname "$(dirname "$(dirname "$0")")")
case "$*" in
"-I -m pip "*)
    mkdir "$here/busy" || echo overlap >>"$here/pip.log"
    echo "$(wc -c) $*" >>"$here/pip.log"
    echo "pip chatter"
    rmdir "$here/busy"
    [ ! -e "$here/pip-fails" ] ;;
"-I -m runtime.cli.programs") echo compiled >>"$here/programs.log"; [ ! -e "$here/no-compiler" ] ;;
"-I -S "*)
    shift 2
    printf '<%s>' "${1#"$here"/}"; shift
    for word; do printf '<%s>' "$word"; done
    cat ;;
esac
"""
APT = """#!/bin/sh
# Plays apt-get: notes how it was called, and installs the kernel unless it is told to fail.
echo "$(basename "$0") $*" >>"$PLAY/apt.log"
cat >>"$PLAY/apt.log"
[ ! -e "$PLAY/apt-fails" ] || exit 100
case "$*" in *install*) touch "$PLAY/linux.uml" ;; esac
"""
TOOLS = [
    "cat",
    "chown",
    "cmp",
    "cp",
    "dirname",
    "env",
    "flock",
    "id",
    "ln",
    "mkdir",
    "mktemp",
    "mv",
    "readlink",
    "rm",
    "rmdir",
    "sh",
    "tail",
    "touch",
    "wc",
    "basename",
]


def script(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


class Checkout:
    """A copy of what ./uml needs of a checkout, with everything installed by players."""

    def __init__(self, directory: Path) -> None:
        self.here = directory / "check out"
        self.venv = self.here / ".venv"
        self.play = directory / "play"
        (self.venv / "bin").mkdir(parents=True)
        (self.venv / "locks").mkdir()
        self.play.mkdir()
        shutil.copytree(ROOT / "requirements", self.here / "requirements")
        shutil.copy(ROOT / "pyproject.toml", self.here)
        # The one package that may be missing here, and the device: files that a test can remove.
        text = (ROOT / "uml").read_text()
        for file in ("/usr/bin/linux.uml", "/dev/fuse", "/etc/mtab"):
            text = text.replace(file, str(self.play / Path(file).name))
            (self.play / Path(file).name).touch()
        script(self.here / "uml", text)
        script(self.venv / "bin" / "python", PYTHON)
        for name in ("run.lock", "test.lock"):
            shutil.copy(self.here / "requirements" / name, self.venv / "locks")
        shutil.copy(self.here / "pyproject.toml", self.venv / "locks")
        (self.venv / "locks" / "checkout").write_text(f"{self.here}\n")
        self.tools = directory / "bin"
        self.tools.mkdir()
        for name in TOOLS:
            (self.tools / name).symlink_to(needs.program(name))
        for name in ("apt-get", "dpkg"):
            script(self.tools / name, APT)
        script(self.tools / "sudo", '#!/bin/sh\nexec "$@"\n')

    def start(self, *args: str, program: str | None = None, before: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*before, program or str(self.here / "uml"), *args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd="/",
            env={"PATH": str(self.tools), "PLAY": str(self.play)},
        )

    def run(self, *args: str, program: str | None = None, before: tuple[str, ...] = ()) -> tuple[int, str, str]:
        """Exit status, standard output and error of ./uml with `input` on its standard input."""
        with self.start(*args, program=program, before=before) as process:
            out, err = process.communicate("input")
        return process.returncode, out, err

    def log(self, name: str) -> list[str]:
        path = {"pip": self.here, "apt": self.play, "programs": self.here}[name] / f"{name}.log"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


@pytest.fixture
def shared_checkout() -> Iterator[Checkout]:
    """A checkout that every user of the machine may read."""
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        os.chmod(directory, 0o755)
        yield Checkout(Path(directory))


RAN = "<umlfs/starting.py><run><a b><>input"


@pytest.mark.parametrize("name", ["uml", ".ci/run", "tools/lock"])
def test_shell_scripts_are_clean(name: str) -> None:
    subprocess.run([needs.program("shellcheck"), ROOT / name], check=True)


def test_with_all_in_place_it_only_becomes_the_command(checkout: Checkout) -> None:
    assert checkout.run("run", "a b", "") == (0, RAN, "")
    assert checkout.log("pip") == checkout.log("apt") == []


def test_through_symlinks(checkout: Checkout, tmp_path: Path) -> None:
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "uml").symlink_to("../other")
    (tmp_path / "other").symlink_to(checkout.here / "uml")
    assert checkout.run("run", "a b", "", program=str(tmp_path / "links" / "uml")) == (0, RAN, "")


@pytest.mark.parametrize("changed", ["requirements/run.lock", "pyproject.toml"])
def test_what_changed_is_installed_once(checkout: Checkout, changed: str) -> None:
    with open(checkout.here / changed, "a") as file:
        file.write("# changed\n")
    status, out, err = checkout.run("run", "a b", "")
    assert (status, out) == (0, RAN)
    assert err.startswith("uml: installing Python packages")
    calls = checkout.log("pip")
    assert [re.findall(r"requirements/(\w+)\.lock|(--editable)", call) for call in calls] == [
        [("build", "")],
        [("run", "")],
        [("", "--editable")],
    ]
    assert all(call.startswith("0 ") for call in calls), "pip ate standard input"
    assert all("--require-hashes" in call for call in calls[:2])
    assert checkout.run("run", "a b", "") == (0, RAN, "")
    assert checkout.log("pip") == calls


@pytest.mark.parametrize("compiler", [True, False])
def test_programs_are_compiled_when_it_is_installed(checkout: Checkout, compiler: bool) -> None:
    """A compiler that is missing now is asked for where a program is needed."""
    (checkout.here / "requirements" / "run.lock").write_text("# changed\n")
    if not compiler:
        (checkout.here / "no-compiler").touch()
    for _ in range(2):
        assert checkout.run("run", "a b", "")[:2] == (0, RAN)
    assert checkout.log("programs") == ["compiled"]


def test_a_checkout_that_moved_is_installed_again(checkout: Checkout, tmp_path: Path) -> None:
    checkout.here = checkout.here.rename(tmp_path / "moved")
    assert checkout.run("run", "a b", "")[:2] == (0, RAN)
    assert str(checkout.here) in checkout.log("pip")[-1]


@pytest.mark.parametrize("args", [("test",), ("--debug", "test", "-x")])
def test_the_tests_have_packages_of_their_own(checkout: Checkout, args: tuple[str, ...]) -> None:
    (checkout.venv / "locks" / "test.lock").unlink()
    assert checkout.run("run", "test")[2] == ""
    status, _, err = checkout.run(*args)
    assert status == 0
    assert err == "uml: installing the Python packages that the tests need\n"
    assert "requirements/test.lock" in checkout.log("pip")[0]
    assert checkout.run(*args)[2] == ""


@pytest.mark.parametrize("args", [("--help",), ("-h",), ("test", "--help"), ("run", "-h")])
def test_asking_for_help_installs_nothing(checkout: Checkout, args: tuple[str, ...]) -> None:
    (checkout.venv / "locks" / "run.lock").unlink()
    (checkout.play / "linux.uml").unlink()
    status, out, err = checkout.run(*args)
    assert (status, err) == (0, "")
    assert "Debian packages: user-mode-linux" in out
    assert checkout.log("pip") == checkout.log("apt") == []


def test_a_failing_pip_is_shown_and_tried_again(checkout: Checkout) -> None:
    (checkout.here / "requirements" / "run.lock").write_text("# changed\n")
    (checkout.here / "pip-fails").touch()
    status, out, err = checkout.run("run")
    assert (status, out) == (1, "")
    assert err.endswith("pip chatter\numl: pip failed; see above, then run this again\n")
    assert not (checkout.venv / "locks").exists(), "an interrupted installation must not count as one"


def test_of_several_first_runs_one_installs(checkout: Checkout) -> None:
    (checkout.here / "requirements" / "run.lock").write_text("# changed\n")
    running = [checkout.start("run", "a b", "") for _ in range(4)]
    for process in running:
        with process:
            assert process.communicate("input")[0] == RAN
            assert process.returncode == 0
    assert len(checkout.log("pip")) == 3
    assert "overlap" not in checkout.log("pip")


def test_missing_package_is_installed(checkout: Checkout) -> None:
    (checkout.play / "linux.uml").unlink()
    status, out, err = checkout.run("run", "a b", "")
    assert (status, out) == (0, RAN)
    assert err == "uml: installing Debian packages: user-mode-linux\n"
    call = checkout.log("apt")[-1]
    assert call.startswith("apt-get install -y --no-install-recommends ")
    assert call.endswith(" user-mode-linux"), "apt ate standard input"


def test_failing_apt_is_mended_once_then_told(checkout: Checkout) -> None:
    (checkout.play / "linux.uml").unlink()
    (checkout.play / "apt-fails").touch()
    status, out, err = checkout.run("run")
    assert (status, out) == (1, "")
    assert err.splitlines()[-1] == (
        "uml: apt-get failed; as root type: apt-get update; apt-get install -y --no-install-recommends user-mode-linux"
    )
    assert [call for call in checkout.log("apt") if "install -y" not in call] == [
        "dpkg --configure -a",
        "apt-get update",
    ]
    # What was interrupted may have left all files in place, and none configured.
    (checkout.play / "linux.uml").touch()
    (checkout.play / "apt-fails").unlink()
    assert checkout.run("run", "a b", "")[:2] == (0, RAN)
    assert checkout.run("run", "a b", "") == (0, RAN, "")


def test_without_root_or_sudo_it_says_what_to_type(checkout: Checkout) -> None:
    (checkout.play / "linux.uml").unlink()
    (checkout.tools / "sudo").unlink()
    (checkout.tools / "id").unlink()
    script(checkout.tools / "id", "#!/bin/sh\necho 1000\n")
    assert checkout.run("run") == (
        1,
        "",
        "uml: Debian packages are missing and there is no sudo; as root type: "
        "apt-get update; apt-get install -y --no-install-recommends user-mode-linux\n",
    )


def test_on_another_distribution_it_names_what_is_missing(checkout: Checkout) -> None:
    (checkout.play / "linux.uml").unlink()
    (checkout.tools / "apt-get").unlink()
    status, _, err = checkout.run("run")
    assert status == 1
    assert err == "uml: missing: user-mode-linux; this is no Debian, install them by its own means\n"


def test_after_installing_it_tells_that_there_is_no_fuse(checkout: Checkout) -> None:
    (checkout.play / "linux.uml").unlink()
    (checkout.play / "fuse").unlink()
    status, out, err = checkout.run("run", "a b", "")
    assert (status, out) == (0, RAN)
    assert err.splitlines()[-1].endswith("as root: modprobe fuse")
    assert checkout.run("run", "a b", "") == (0, RAN, ""), "it tells only once"


def test_with_packages_it_makes_the_list_of_mounts(checkout: Checkout) -> None:
    (checkout.play / "linux.uml").unlink()
    (checkout.play / "mtab").unlink()
    status, out, err = checkout.run("run", "a b", "")
    assert (status, out) == (0, RAN)
    assert "uml: making " in err
    assert os.readlink(checkout.play / "mtab") == "../proc/self/mounts"


def test_a_checkout_of_somebody_else(shared_checkout: Checkout) -> None:
    checkout = shared_checkout
    checkout.here.chmod(0o555)
    assert checkout.run("run", "a b", "", before=needs.as_nobody()) == (0, RAN, "")
    with open(checkout.here / "requirements" / "run.lock", "a") as file:
        file.write("# changed\n")
    run = checkout.run("run", before=needs.as_nobody())
    test = checkout.run("test", before=needs.as_nobody())
    checkout.here.chmod(0o755)
    says = f"uml: {checkout.here}: not all is installed, and you may not write here; run '{checkout.here}/uml "
    own = "' as its owner, or use a clone of your own\n"
    assert run == (1, "", f"{says}--version{own}")
    assert test == (1, "", f"{says}test{own}")


def test_what_root_installs_for_another_stays_theirs(shared_checkout: Checkout) -> None:
    here, venv = shared_checkout.here, shared_checkout.venv
    (here / "requirements" / "run.lock").write_text("# changed\n")
    if os.geteuid() == 0:
        os.chown(here, 65534, 65534)
    assert shared_checkout.run("run", before=needs.as_root())[0] == 0
    assert {path.stat().st_uid for path in (venv, *venv.rglob("*"))} == {here.stat().st_uid}


def test_every_package_is_known_by_a_file_it_has() -> None:
    wanted = re.findall(r"^ +want '?(/[^' ]+)'? ([a-z0-9+.-]+)(?: #.*)?$", (ROOT / "uml").read_text(), re.MULTILINE)
    assert len(wanted) > 20
    lacking = [file for file, _ in wanted if not list(Path("/").glob(file.lstrip("/")))]
    assert lacking == []
    subprocess.run(["dpkg-query", "-W", *(package for _, package in wanted)], check=True, stdout=subprocess.DEVNULL)


def locked(name: str) -> dict[str, tuple[str, int]]:
    """Version and number of hashes of every requirement in a lock file."""
    text = (ROOT / "requirements" / f"{name}.lock").read_text()
    entries = re.findall(
        r"^([\w.-]+)(?:\[[\w,]+\])?==(\S+) \\\n((?: +--hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", text, re.MULTILINE
    )
    return {package: (version, hashes.count("--hash")) for package, version, hashes in entries}


def test_locks_pin_everything_with_hashes_and_agree() -> None:
    locks = {name: locked(name) for name in ("build", "run", "test")}
    assert set(locks["run"]) <= set(locks["test"])
    for name, lock in locks.items():
        text = (ROOT / "requirements" / f"{name}.lock").read_text()
        assert len(re.findall(r"^[^#\s]", text, re.MULTILINE)) == len(lock), "a line that is no pinned requirement"
        assert "//" not in text, "names a host"
        for other in locks.values():
            assert {key: lock[key] for key in lock.keys() & other.keys()} == {
                key: other[key] for key in lock.keys() & other.keys()
            }
