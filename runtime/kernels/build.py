"""Building a kernel from its source, for an ordinary user, into the store."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from runtime.host.needs import of_command, path_of
from runtime.kernels import flavours as fragments
from runtime.kernels import library, store
from runtime.kernels.apt import Say
from runtime.kernels.install import Trial, checksum, complete
from runtime.kernels.programs import must
from runtime.kernels.source_tree import workshop
from umlfs.errors import UmlError
from umlfs.host.programs import Program

LIBRARY: Final = Path("/lib/x86_64-linux-gnu")
FILES: Final = 2400
"""About as many files are compiled, for the bar that shows how far it is."""
_STEP: Final = re.compile(r"\s+(?:CC|AS|LD|AR)\s")
_ERROR: Final = re.compile(r"error:|\*\*\*|undefined reference")

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """A kernel that is to be built."""

    tree: Path
    flavours: Sequence[str] = (fragments.BASE,)
    settings: Sequence[str] = ()
    name: str | None = None
    jobs: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))

    @property
    def output(self) -> Path:
        """Where the objects go: to the same place each time, so that a second build is quick."""
        return workshop() / f"{self.tree.name}-{'-'.join(self.flavours)}.out"

    @property
    def log(self) -> Path:
        return self.output / "build.log"

    @property
    def options(self) -> dict[str, str]:
        """What of the configuration is ours."""
        named = [each for each in self.flavours if each != fragments.BASE] or [fragments.BASE]
        wanted = fragments.wanted(self.all_flavours, self.settings)
        return {"CONFIG_LOCALVERSION": f'"-{"-".join(named)}"'} | wanted

    @property
    def all_flavours(self) -> list[str]:
        return list(dict.fromkeys([fragments.BASE, *self.flavours]))

    def make(self, *targets: str) -> list[str]:
        return ["make", "-C", str(self.tree), f"O={self.output}", "ARCH=um", *targets]

    def link(self, libraries: Path) -> list[str]:
        """Make the kernel, to use the C library in `libraries`. patchelf cannot change that afterwards: it moves the
        kernel's uninitialised data."""
        own = f"-Xlinker --dynamic-linker={libraries / library.INTERPRETER} -Xlinker -rpath={libraries}"
        theirs = "$(foreach opt,$(KBUILD_LDFLAGS) $(LDFLAGS_EXECSTACK),-Wl,$(opt))"
        return self.make(f"-j{self.jobs}", f"LD_FLAGS_CMDLINE={theirs} {own}", "linux")

    def commands(self, *, edit: bool = False) -> list[list[str]]:
        """What is run, in order."""
        with_editor = [self.make("menuconfig")] if edit else []
        return [
            self.make("-s", "x86_64_defconfig"),
            ["sh", "-c", f"cat >>{shlex.quote(str(self.output / '.config'))}"],
            self.make("-s", "olddefconfig"),
            *with_editor,
            self.link(store.directory() / (self.name or "NAME") / "lib"),
        ]


def lacking() -> list[str]:
    """The packages of Debian's that building needs and this host does not have."""
    found = [each.package for each in of_command("kernel build") if path_of(each.name) is None]
    return found + ([] if Path("/usr/include/stdio.h").exists() else ["libc6-dev"])


def check_host() -> None:
    """UmlError naming all that building lacks here."""
    if packages := lacking():
        names = " ".join(packages)
        raise UmlError(f"building a kernel needs what this host lacks: {names}", f"`apt install {names}`")


def dry_run(plan: Plan, *, edit: bool = False) -> list[str]:
    """The commands, as lines for a shell."""
    lines = [f"mkdir -p {shlex.quote(str(plan.output))}"]
    for command in plan.commands(edit=edit):
        if command[0] == "sh":
            lines += [f"{command[2]} <<'END'", fragments.rendered(plan.options) + "END"]
        else:
            lines.append(shlex.join(command))
    return lines


def configure(plan: Plan, *, edit: bool = False) -> None:
    """Make the configuration. UmlError if the kernel's tools do not take it."""
    plan.output.mkdir(parents=True, exist_ok=True)
    must(plan.make("-s", "x86_64_defconfig"), "the kernel cannot be configured", "is its tree clean (make mrproper)?")
    with open(plan.output / ".config", "a") as file:
        file.write(fragments.rendered(plan.options))
    must(plan.make("-s", "olddefconfig"), "the kernel cannot be configured")
    if edit:
        # In our own group, so that it may read from the terminal.
        with subprocess.Popen(plan.make("menuconfig"), process_group=None) as editor:
            if editor.wait():
                raise UmlError("the configuration cannot be edited", "--edit needs a terminal, and libncurses-dev")
        return
    fragments.check(plan.options, (plan.output / ".config").read_text())


def compile_kernel(plan: Plan, libraries: Path, progress: Progress | None = None) -> Path:
    """Compile: the kernel's file, which starts once the C library is in `libraries`. UmlError with the compiler's first
    error."""
    count = 0
    with open(plan.log, "wb", buffering=0) as log:
        words = ["nice", "-n", "10", *plan.link(libraries)]
        with Program(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as build:
            try:
                assert build.stdout is not None
                for line in build.stdout:
                    log.write(line)
                    if progress is not None and _STEP.match(line.decode(errors="replace")):
                        count += 1
                        progress(min(count, FILES), FILES)
            except BaseException:
                build.kill()
                raise
    if build.returncode:
        raise UmlError(f"the kernel does not compile: {first_error(plan.log)}", f"{plan.log} has all of it")
    return plan.output / "linux"


def first_error(log: Path) -> str:
    """The first line of a build's log that is an error."""
    lines = log.read_text(errors="replace").splitlines()
    found = next((line for line in lines if _ERROR.search(line)), lines[-1] if lines else "make failed")
    return found.strip()


def build(
    plan: Plan, *, edit: bool = False, trial: Trial, say: Say = lambda line: None, progress: Progress | None = None
) -> store.StoredKernel:
    """Configure, compile, and put into the store with the C library that it was linked with. UmlError; the tree stays
    built as far as it is, so that the next try goes on there."""
    check_host()
    say("configuring")
    configure(plan, edit=edit)
    say(f"compiling {plan.tree.name} ({', '.join(plan.all_flavours)}), its log is {plan.log}")
    # Without the first, what is asked second has not heard of CONFIG_LOCALVERSION in a tree that was never built.
    must(plan.make("-s", "syncconfig"), "the kernel cannot be configured")
    version = must(plan.make("-s", "kernelrelease"), "the kernel does not tell its version").split()[-1]
    libraries = _libraries(plan.name or version)
    kernel = compile_kernel(plan, libraries, progress)
    with store.adding(plan.name or version) as place:
        keeps_symbols = "debug" in plan.flavours
        shutil.copy(kernel, place / store.KERNEL)
        if not keeps_symbols:
            must(["strip", place / store.KERNEL], "the kernel cannot be stripped")
        if fragments.parse((plan.output / ".config").read_text()).get("CONFIG_MODULES") == "y":
            say("compiling modules")
            must(plan.make(f"-j{plan.jobs}", "-s", "modules"), "the modules do not compile")
            must(plan.make("-s", f"INSTALL_MOD_PATH={place}", "modules_install"), "the modules cannot be put in place")
        library.take_from([LIBRARY], libraries)
        about = store.About(
            version,
            f"built from {plan.tree}",
            flavours=list(plan.flavours),
            checksums={".config": checksum(plan.output / ".config")},
        )
        return complete(place, about, trial, say)


def _libraries(name: str) -> Path:
    """Where the C library of the kernel `name` will be. UmlError if the linker cannot be told such a path."""
    found = store.directory() / store.check_name(name) / "lib"
    if re.search(r"[^\w/.+~-]", str(found)):
        raise UmlError(f"{found}: has a character that kernels cannot be linked with", "name a plain XDG_DATA_HOME")
    return found
