"""How the packages are laid out once installed; all else is in pyproject.toml.

The repository has its packages side by side. An installed umlfs has the other three inside of `umlfs/_packages`,
where no distribution with a package of the same name reaches (see `umlfs/entry.py`), and the manual in `umlfs/_docs`.
"""

import sys
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).resolve().parent
EMBEDDED = ("hostfs", "humfs", "runtime")
COMPILED = ("umlfs/virtio/_virtqueue.pyx", "hostfs/_answers.pyx")
"""What is faster compiled; a module in Python beside each serves where it was not."""
MAN_PAGES = sorted(str(path.relative_to(HERE)) for path in (HERE / "man").glob("*.1"))


def layout() -> dict[str, object]:
    """The packages, and where they are in the repository."""
    found = find_packages(str(HERE), include=["umlfs*", *(f"{name}*" for name in EMBEDDED)])
    if "editable_wheel" in sys.argv:
        return {"packages": found}
    within = {each: f"umlfs._packages.{each}" for each in found if each.split(".")[0] in EMBEDDED}
    return {
        "packages": [*(within.get(each, each) for each in found), "umlfs._docs"],
        "package_dir": {**{name: each.replace(".", "/") for each, name in within.items()}, "umlfs._docs": "docs"},
    }


def extensions() -> list[Extension]:
    """What is to be compiled: nothing without Cython. One that the compiler refuses, or without one, is left out."""
    try:
        from Cython.Build import cythonize
    except ImportError:
        return []
    embed = "" if "editable_wheel" in sys.argv else "umlfs._packages."
    found = []
    for source in COMPILED:
        name = source.removesuffix(".pyx").replace("/", ".")
        found.append(Extension(embed + name if name.split(".")[0] in EMBEDDED else name, [source], optional=True))
    compiled: list[Extension] = cythonize(found, build_dir="build/cython", language_level=3)
    return compiled


class BuildWithPath(build_py):
    """Adds a file by which programs of others find the packages too, behind all else that they find."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            Path(self.build_lib, "umlfs.pth").write_text("umlfs/_packages\n")


setup(
    **layout(),
    ext_modules=extensions(),
    cmdclass={"build_py": BuildWithPath},
    data_files=[("share/man/man1", MAN_PAGES)] if MAN_PAGES else [],
)
