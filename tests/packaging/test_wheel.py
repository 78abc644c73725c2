"""The wheel in an environment of its own, beside somebody else's package called `runtime`."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from tests.packaging.checkout import copy_checkout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist, and the wheel that is built from it. The checkout, whose copy this is, stays as it is."""
    folder = tmp_path_factory.mktemp("dist")
    copy = copy_checkout(folder / "checkout")
    command: list[str | Path] = [copy / "tools" / "dist", "--no-isolation", "--outdir", folder / "out"]
    done = subprocess.run(
        command, env={"PATH": "/usr/bin:/bin", "PYTHON": sys.executable}, capture_output=True, check=False
    )
    assert done.returncode == 0, (done.stdout + done.stderr).decode()
    return folder / "out"


@pytest.fixture(scope="module")
def installed(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel, what it needs, and a `runtime`, a `hostfs` and a `humfs` of somebody else."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, symlinks=True, with_pip=False)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    wheel = next(dist.glob("*.whl"))
    pip: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        folder / "bin" / "python",
        "install",
        "-q",
        "--no-deps",
        "--no-index",
    ]
    subprocess.run([*pip, wheel], check=True, capture_output=True)
    (site / "needed.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    for name in ("runtime", "hostfs", "humfs"):
        (site / f"{name}.py").write_text("raise SystemExit('somebody else has this name')\n")
    return folder


def uml(installed: Path, *words: str) -> str:
    done = subprocess.run(
        [installed / "bin" / "uml", *words], cwd=installed, capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout


def test_the_wheel_has_all_that_is_no_module(dist: Path) -> None:
    with zipfile.ZipFile(next(dist.glob("*.whl"))) as wheel:
        names = wheel.namelist()
    for end in (
        "_packages/runtime/web/static/vendor/xterm.js",
        "licenses/runtime/web/static/vendor/LICENSE.xterm",
        "_packages/runtime/guest/init.sh",
        "_packages/runtime/appliance/filer.c",
        "_docs/web.md",
        "share/man/man1/uml-cow-create.1",
        "umlfs/py.typed",
    ):
        assert any(name.endswith(end) for name in names), end
    tops = {name.split("/")[0] for name in names}
    assert {each for each in tops if not each.startswith("umlfs-")} == {"umlfs", "umlfs.pth"}


def test_the_sdist_has_what_the_wheel_is_built_of(dist: Path) -> None:
    with tarfile.open(next(dist.glob("*.tar.gz"))) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {"setup.py", "pyproject.toml", "LICENSE", "man/uml.1", "docs/web.md", "runtime/cli/__init__.py"} <= names


def test_commands_work_beside_packages_of_the_same_names(installed: Path) -> None:
    assert uml(installed, "--version").startswith("uml ")
    assert "pyvenv.cfg" in uml(installed, "ls", ".")
    assert uml(installed, "help", "configuration").startswith("# Configuration")
    assert uml(installed, "run", "--", "echo", "from the wheel") == "from the wheel\n"
    done = subprocess.run([installed / "bin" / "uml_moo"], capture_output=True, text=True, check=False)
    assert "sage" in done.stdout + done.stderr


def test_programs_of_others_find_the_packages_where_nobody_else_has_their_names(installed: Path) -> None:
    site = Path(sysconfig.get_path("purelib", vars={"base": str(installed)}))
    for name in ("runtime", "hostfs", "humfs"):
        (site / f"{name}.py").unlink()
    code = "import hostfs, humfs, runtime; runtime.run; print(runtime.__file__)"
    done = subprocess.run([installed / "bin" / "python", "-I", "-c", code], capture_output=True, text=True, check=True)
    assert "_packages/runtime/__init__.py" in done.stdout
