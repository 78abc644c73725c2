from __future__ import annotations

import gzip
import lzma
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime.kernels import kernel, modules
from runtime.kernels.features import Features
from runtime.kernels.kernel import Kernel, find_kernel
from runtime.kernels.modules import check_version, read_module, resolve
from umlfs.errors import UmlError

DEPENDENCIES = """\
kernel/a.ko: kernel/b-1.ko.xz kernel/c.ko
kernel/b-1.ko.xz: kernel/c.ko
kernel/c.ko:
kernel/d.ko: kernel/c.ko
kernel/broken.ko: kernel/missing.ko
"""


@pytest.fixture
def built(tmp_path: Path) -> Kernel:
    directory = tmp_path / "modules" / "6.1"
    directory.mkdir(parents=True)
    (directory / "modules.dep").write_text(DEPENDENCIES)
    (directory / "modules.builtin").write_text("kernel/fs/built-in.ko\n")
    return Kernel(tmp_path / "linux", "6.1", directory)


def names(built: Kernel, *wanted: str) -> list[str]:
    return [module.name for module in resolve(built, wanted)]


def test_dependencies_come_first(built: Kernel) -> None:
    assert names(built, "a") == ["c", "b_1", "a"]
    assert names(built, "d", "a", "c") == ["c", "d", "b_1", "a"]
    assert names(built, "b-1") == names(built, "b_1") == ["c", "b_1"]


def test_paths(built: Kernel) -> None:
    assert built.modules is not None
    assert resolve(built, ["b_1"])[1].path == built.modules / "kernel/b-1.ko.xz"


def test_built_in_needs_no_file(built: Kernel) -> None:
    assert names(built, "built_in", "built-in", "c") == ["c"]


def test_unknown_module(built: Kernel) -> None:
    with pytest.raises(UmlError, match=r"kernel 6\.1 has no module nonsense"):
        resolve(built, ["c", "nonsense"])


def test_dependency_that_is_not_there(built: Kernel) -> None:
    with pytest.raises(UmlError, match="needs missing, which is not there"):
        resolve(built, ["broken"])


def test_the_guest_s_modules() -> None:
    found = [module.name for module in resolve(find_kernel(), ["virtiofs", "overlay", "virtio_blk"])]
    assert found == ["fuse", "virtiofs", "overlay", "virtio_blk"]


def test_modules_for_another_version_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "PACKAGED_MODULES", tmp_path)
    (tmp_path / "5.10.5").mkdir()
    (tmp_path / "5.10.5/modules.dep").touch()
    bare = Kernel(find_kernel().path, "6.1.999", None)
    with pytest.raises(UmlError, match=r"no modules for kernel 6\.1\.999.*needs virtiofs: there are some for 5\.10\.5"):
        resolve(bare, ["virtiofs"])
    (tmp_path / "5.10.5/modules.dep").unlink()
    with pytest.raises(UmlError, match="there are none"):
        resolve(bare, ["virtiofs"])


def test_kernel_without_modules_that_needs_none(monkeypatch: pytest.MonkeyPatch) -> None:
    known = Features("6.1.999", frozenset(), {"CONFIG_FUSE_FS": "y", "CONFIG_VIRTIO_FS": "m"})
    monkeypatch.setattr(modules, "features", lambda kernel: known)
    bare = Kernel(Path("/usr/bin/linux.uml"), "6.1.999", None)
    assert resolve(bare, ["fuse"]) == []
    with pytest.raises(UmlError, match="needs virtiofs"):
        resolve(bare, ["fuse", "virtiofs"])


@pytest.mark.parametrize(("suffix", "compress"), [("", bytes), (".gz", gzip.compress), (".xz", lzma.compress)])
def test_compressed_modules(tmp_path: Path, suffix: str, compress: Callable[[bytes], bytes]) -> None:
    content = b"\x7fELF" + bytes(5000)
    path = tmp_path / f"m.ko{suffix}"
    path.write_bytes(compress(content))
    assert read_module(path) == content
    path.write_bytes(compress(content)[:-10] if suffix else b"text")
    with pytest.raises(UmlError, match=r"damaged|not a kernel module"):
        read_module(path)


def test_zstd_is_named(tmp_path: Path) -> None:
    path = tmp_path / "m.ko.zst"
    path.write_bytes(b"\x28\xb5\x2f\xfd")
    with pytest.raises(UmlError, match=f"zstd cannot be used.*unzstd {path}"):
        read_module(path)


def test_missing_module_file(tmp_path: Path) -> None:
    with pytest.raises(UmlError, match="No such file"):
        read_module(tmp_path / "m.ko")


def test_the_order_is_that_of_the_modules_themselves() -> None:
    """What each module says that it needs, for the one that needs most."""
    found = find_kernel()
    assert found.modules is not None
    lines = (found.modules / "modules.dep").read_text().splitlines()
    deepest = max(lines, key=lambda line: line.count(" "))
    loaded: set[str] = set()
    for module in resolve(found, [modules.module_name(deepest.partition(":")[0])]):
        (depends,) = re.findall(rb"\0depends=([^\0]*)\0", module.path.read_bytes())
        assert {modules.module_name(name) for name in depends.decode().split(",") if name} <= loaded
        loaded.add(module.name)
    assert len(loaded) > 3


def test_the_tree_that_a_kernel_was_built_in(tmp_path: Path) -> None:
    """No `make modules_install` is needed: what a module needs it says itself."""
    needs = {"fs/fuse/fuse": "", "fs/fuse/virtiofs": "fuse,ring-a", "drivers/ring-a": "core", "drivers/core": ""}
    for name, needed in needs.items():
        path = tmp_path / f"{name}.ko"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\x7fELF\0license=GPL\0depends=%s\0name=x\0" % needed.encode())
    (tmp_path / "modules.order").write_text("".join(f"{name}.o\n" for name in needs))
    (tmp_path / ".config").touch()
    assert kernel._modules(tmp_path / "linux", "9.9") == tmp_path
    built = Kernel(tmp_path / "linux", "9.9", tmp_path)
    assert names(built, "virtiofs") == ["core", "ring_a", "fuse", "virtiofs"]
    assert resolve(built, ["ring_a"])[1].path == tmp_path / "drivers/ring-a.ko"


def test_modules_that_need_each_other(tmp_path: Path) -> None:
    for name, needed in (("a", b"b"), ("b", b"a")):
        (tmp_path / f"{name}.ko").write_bytes(b"\x7fELF\0depends=%s\0" % needed)
    (tmp_path / "modules.order").write_text("a.o\nb.o\n")
    with pytest.raises(UmlError, match="need each other"):
        names(Kernel(tmp_path / "linux", "9.9", tmp_path), "a")


def test_a_module_of_another_kernel(tmp_path: Path) -> None:
    """The kernel would refuse it, and the guest not come up."""
    own = find_kernel()
    [fuse] = resolve(own, ["fuse"])
    content = read_module(fuse.path)
    check_version(fuse.path, content, own.version)
    with pytest.raises(
        UmlError, match=rf"fuse\.ko: a module of Linux {re.escape(own.version)}, and the kernel is 6\.1\.9; build"
    ):
        check_version(fuse.path, content, "6.1.9")
    check_version(tmp_path / "odd.ko", b"says nothing", "6.1.9")
