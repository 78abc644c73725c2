"""Building kernels: of a tree that looks like one and is built in no time, and, in the long run, of a real one."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from runtime.command.trial import try_kernel
from runtime.kernels import store
from runtime.kernels.build import Plan, build, dry_run, first_error, lacking
from runtime.kernels.flavours import FLAVOURS, check, fragment, parse, wanted
from runtime.kernels.kernel import find_kernel, system_kernel
from runtime.kernels.source_tree import SCRATCH, source_tree, workshop
from tests import needs
from tests.kernels.archive import make_source_package, served
from umlfs.errors import UmlError, UsageError

MAKEFILE = """\
x86_64_defconfig:
\techo CONFIG_HOSTFS=y >$(O)/.config
olddefconfig:
\tgrep -v NOWHERE $(O)/.config >$(O)/.new && mv $(O)/.new $(O)/.config
syncconfig:
	cp $(O)/.config $(O)/auto.conf
kernelrelease:
	@grep -q CONFIG $(O)/auto.conf && KERNEL --version
linux:
\t@echo '  CC      init/main.o'
\t@if grep -q CONFIG_BROKEN=y $(O)/.config; then echo 'init/main.c:7:1: error: expected ;'; echo more; exit 1; fi
\tcp KERNEL $(O)/linux
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    place = tmp_path / "tree"
    (place / "arch/um").mkdir(parents=True)
    (place / "arch/um/Makefile").touch()
    (place / "Kbuild").touch()
    (place / "Makefile").write_text(MAKEFILE.replace("KERNEL", str(system_kernel().path)))
    return place


@pytest.fixture(autouse=True)
def tools() -> None:
    for name in ("make", "gcc", "flex", "bison", "bc", "strip"):
        needs.program(name)


def test_it_is_there_from_then_on(tree: Path) -> None:
    tried: list[Path] = []
    steps: list[int] = []
    entry = build(
        Plan(tree, ("fast",), name="mine"), trial=tried.append, progress=lambda done, size: steps.append(done)
    )
    assert tried == [entry.kernel]
    assert steps == [1]
    assert find_kernel("mine").path == entry.kernel
    assert entry.about.flavours == ["fast"]
    assert (entry.path / "lib/libc.so.6").is_file(), "it brings the library that it was linked with"
    options = parse((Plan(tree).output / ".config").read_text())
    assert options["CONFIG_VIRTIO_FS"] == "y"
    assert options["CONFIG_LOCALVERSION"] == '"-fast"'


def test_kernels_for_experts_are_taken_by_name_alone(tree: Path) -> None:
    build(Plan(tree, ("debug",), name="checks"), trial=lambda kernel: None)
    assert find_kernel().path == system_kernel().path
    assert find_kernel("checks").path == store.directory() / "checks/linux"


def test_what_does_not_compile(tree: Path) -> None:
    plan = Plan(tree, settings=["CONFIG_BROKEN=y"])
    with pytest.raises(UmlError, match=r"does not compile: init/main\.c:7:1: error: expected ;; .*build\.log has all"):
        build(plan, trial=lambda kernel: None)
    assert first_error(plan.log) == "init/main.c:7:1: error: expected ;"
    assert store.entries() == []


def test_an_option_that_is_dropped(tree: Path) -> None:
    with pytest.raises(UmlError, match="configuration does not take CONFIG_NOWHERE=y; "):
        build(Plan(tree, settings=["CONFIG_NOWHERE=y"]), trial=lambda kernel: None)
    check({"CONFIG_X": "n"}, "")
    with pytest.raises(UmlError):
        check({"CONFIG_X": "n"}, "CONFIG_X=y\n")


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_flavours(flavour: str) -> None:
    """Each is options alone, with a reason before the first."""
    text = fragment(flavour)
    assert text.startswith("# ")
    left = [line for line in text.splitlines() if line and not line.startswith("#") and not parse(line)]
    assert left == []


def test_bad_words(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such flavour; there are fast, smp"):
        wanted(["quick"], [])
    with pytest.raises(UsageError, match="not an option of a kernel"):
        wanted([], ["KASAN"])
    with pytest.raises(UsageError, match="no such tree, archive or package"):
        source_tree(str(tmp_path / "no"), mirror=None, keyring=None, say=print)
    with pytest.raises(UmlError, match="not the source of a kernel"):
        source_tree(str(tmp_path), mirror=None, keyring=None, say=print)


def test_an_archive(tree: Path, tmp_path: Path) -> None:
    archive = tmp_path / "linux-1.2.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(tree, "linux-1.2")
    found = source_tree(str(archive), mirror=None, keyring=None, say=print)
    assert (found / "Kbuild").is_file()
    assert found == source_tree(str(archive), mirror=None, keyring=None, say=print)


def test_a_package_of_debian(tree: Path, tmp_path: Path) -> None:
    """It is unpacked twice, the package and the archive in it; what a killed process left there goes."""
    left = workshop() / f"{SCRATCH}1"
    left.mkdir()
    with served(tmp_path) as archive:
        archive.add("testing", make_source_package(tmp_path, tree, "9.1"))
        found = source_tree(None, mirror=archive.url, keyring=str(archive.keyring), say=print)
    assert (found / "Kbuild").is_file()
    assert list(workshop().iterdir()) == [found]


def test_dry_run(tree: Path) -> None:
    lines = "\n".join(dry_run(Plan(tree, ("smp",)), edit=True))
    assert "CONFIG_SMP=y" in lines
    assert lines.index("x86_64_defconfig") < lines.index("olddefconfig") < lines.index("menuconfig")
    assert not Plan(tree, ("smp",)).output.exists()


def test_what_the_host_lacks(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert {"make", "gcc", "flex", "bison", "bc"} <= set(lacking())
    with pytest.raises(UmlError, match=r"lacks: make gcc binutils flex bison bc; `apt install make gcc"):
        build(Plan(tree), trial=lambda kernel: None)


@pytest.mark.slow
@pytest.mark.guest
def test_a_real_one() -> None:
    """Half an hour on a busy machine: it runs a guest's command at the end."""
    tree = source_tree(None, mirror=None, keyring=None, say=print)
    entry = build(Plan(tree), trial=try_kernel, say=print)
    assert entry.about.version.endswith("-fast")
    assert entry.about.size < 20 << 20
