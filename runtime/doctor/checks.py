"""What this machine has, and lacks, for running guests: `diagnose()`, with an example in docs/doctor.md."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

from runtime.doctor.check import Check, sudo
from runtime.doctor.jail import NAMESPACE_SETTINGS, jail_checks
from runtime.guest.initramfs import find_busybox
from runtime.host.compiled import INSTALLED, find_compiler
from runtime.host.needs import NEEDS, need, path_of, purposes
from runtime.kernels.kernel import Kernel, find_kernel
from runtime.kernels.modules import resolve
from runtime.network import slirp
from runtime.network.engine import user_namespaces
from runtime.process.memory import DEFAULT, memory_directory
from umlfs.errors import UmlError
from umlfs.host.programs import run_program

MODULES = ("fuse", "virtiofs", "overlay", "virtio_blk")
"""Kernel modules that the root of a guest and its disks need."""

PACKAGED_KERNEL = Path("/usr/bin/linux.uml")
FUSE_DEVICE = Path("/dev/fuse")
FUSERMOUNT = Path("/usr/bin/fusermount3")
MTAB = Path("/etc/mtab")
OWN_FILES = Path("/proc/self/fd")
PTRACE_SCOPE = Path("/proc/sys/kernel/yama/ptrace_scope")
SHARED_MEMORY = Path("/dev/shm")


TRIED = frozenset({"/dev/fuse", "fusermount3", "/etc/mtab", "pyfuse3", slirp.PROGRAM, "user namespaces", "compiler"})
"""Needs of commands that are more than a program that is there or not."""


def diagnose(kernel: str | None = None) -> list[Check]:
    """Look for everything that guests need, `kernel` being the path of the kernel to use (default: the installed one).

    Blocks for about half a second, runs short child processes, and leaves nothing behind. What is missing
    is told by a check that is not `ok`: nothing is raised.
    """
    return [
        _proc(),
        *_kernel_checks(kernel),
        _memory(),
        _ptrace(),
        _busybox(),
        _fuse_device(),
        _fusermount(),
        _mtab(),
        _pyfuse3(),
        _slirp4netns(),
        _user_namespaces(),
        _compiler(),
        *_programs(),
        *jail_checks(),
    ]


def _proc() -> Check:
    purpose = "every command: files and processes of its own"
    if OWN_FILES.is_dir():
        return Check("/proc", True, True, "mounted", purpose)
    return Check("/proc", False, True, "not mounted", purpose, sudo("mount -t proc proc /proc"))


def _compiler() -> Check:
    """Only an installation without our own C programs needs one."""
    purpose = purposes(need("compiler"))
    if INSTALLED.is_dir() and any(INSTALLED.iterdir()):
        return Check("compiler", True, False, f"not needed: {INSTALLED} has what it would make", purpose)
    if (path := find_compiler()) is None:
        return Check("compiler", False, False, "not there", purpose, _install("gcc libc6-dev"))
    return Check("compiler", True, False, path, purpose)


def _programs() -> list[Check]:
    """The other programs that commands need, by package."""
    found: list[Check] = []
    for package in dict.fromkeys(each.package for each in NEEDS if each.package and each.name not in TRIED):
        needs = [each for each in NEEDS if each.package == package and each.name not in TRIED]
        missing = [each.name for each in needs if path_of(each.name) is None]
        names = ", ".join(missing) if missing else ", ".join(str(path_of(each.name)) for each in needs)
        text = f"not there: {names}" if missing else names
        found.append(Check(package, not missing, False, text, purposes(*needs), _install(package) if missing else None))
    return found


def _slirp4netns() -> Check:
    purpose = purposes(need(slirp.PROGRAM))
    try:
        path = slirp.find()
    except UmlError as error:
        return Check(slirp.PROGRAM, False, False, error.what, purpose, _install(slirp.PROGRAM))
    return Check(slirp.PROGRAM, True, False, path, purpose)


def _user_namespaces() -> Check:
    """In a chroot they are forbidden whatever the settings say."""
    purpose = purposes(need("user namespaces"))
    if os.geteuid() == 0 or user_namespaces():
        return Check("user namespaces", True, False, "allowed", purpose)
    for path, value in NAMESPACE_SETTINGS.items():
        if path.exists() and path.read_text().strip() != value:
            mend = sudo(f"sysctl {'.'.join(path.parts[3:])}={value}")
            return Check("user namespaces", False, False, f"forbidden by {path}", purpose, mend)
    return Check("user namespaces", False, False, "forbidden, as by the seccomp filter of a container", purpose)


def can_run(checks: list[Check]) -> bool:
    """Whether `uml run` can work: nothing that it requires is missing."""
    return all(check.ok for check in checks if check.required)


def _install(package: str) -> str:
    return sudo(f"apt-get install {package}")


def _kernel_checks(path: str | None) -> list[Check]:
    purpose = "every guest"
    try:
        kernel = find_kernel(path)
    except UmlError as error:
        named = path or os.environ.get("UML_KERNEL")
        return [Check("kernel", False, True, error.what, purpose, None if named else _install("user-mode-linux"))]
    return [Check("kernel", True, True, f"{kernel.path}, version {kernel.version}", purpose), _modules(kernel)]


def _modules(kernel: Kernel) -> Check:
    """The modules that belong to this very kernel: those of another version do not load."""
    purpose = "the root of a guest, its mounts and disks"
    mend = _install("--reinstall user-mode-linux") if kernel.path == PACKAGED_KERNEL else None
    try:
        missing = [str(module.path) for module in resolve(kernel, MODULES) if not module.path.is_file()]
    except UmlError as error:
        return Check("modules", False, True, error.what, purpose, mend)
    if missing:
        return Check("modules", False, True, f"not there: {', '.join(missing)}", purpose, mend)
    return Check("modules", True, True, str(kernel.modules or "built into the kernel"), purpose)


def _memory() -> Check:
    purpose = f"the memory of a guest, {DEFAULT >> 20} MiB unless told otherwise"
    try:
        directory = memory_directory(DEFAULT)
    except UmlError as error:
        # An existing tmpfs keeps what it holds; /dev/shm is a plain directory in some containers.
        how = "-o remount,exec,size=2G" if SHARED_MEMORY.is_mount() else "-t tmpfs tmpfs"
        return Check("memory", False, True, error.what, purpose, sudo(f"mount {how} {SHARED_MEMORY}"))
    return Check("memory", True, True, f"{directory} can be mapped executable and has room", purpose)


def _ptrace() -> Check:
    """Have a child ask to be traced by us, as the kernel's processes do."""
    code = "import ctypes, sys; sys.exit(0 if ctypes.CDLL(None).ptrace(0, 0, None, None) == 0 else 1)"
    done = run_program([sys.executable, "-I", "-S", "-c", code])
    purpose = "running the processes of a guest"
    if done.returncode == 0:
        return Check("ptrace", True, True, "allowed", purpose)
    if PTRACE_SCOPE.exists() and PTRACE_SCOPE.read_text().strip() in ("2", "3"):
        mend = sudo("sysctl kernel.yama.ptrace_scope=1")
        return Check("ptrace", False, True, f"forbidden by {PTRACE_SCOPE}", purpose, mend)
    container = "forbidden, as by the seccomp filter of a container: docker and podman allow it by --cap-add SYS_PTRACE"
    return Check("ptrace", False, True, f"{container} --security-opt seccomp=unconfined", purpose)


def _busybox() -> Check:
    purpose = "the first program of a guest"
    try:
        path = find_busybox()
    except UmlError as error:
        named = os.environ.get("UML_BUSYBOX")
        return Check("busybox", False, True, error.what, purpose, None if named else _install("busybox-static"))
    return Check("busybox", True, True, f"{path}, static", purpose)


def _fuse_device() -> Check:
    name = str(FUSE_DEVICE)
    purpose = purposes(need("/dev/fuse"))
    try:
        os.close(os.open(FUSE_DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        return Check(name, False, False, "not there", purpose, sudo("modprobe fuse"))
    except OSError as error:
        return Check(name, False, False, os.strerror(error.errno or 0), purpose, sudo(f"chmod 666 {FUSE_DEVICE}"))
    return Check(name, True, False, "opens", purpose)


def _fusermount() -> Check:
    purpose = purposes(need("fusermount3"))
    try:
        status = FUSERMOUNT.stat()
    except OSError as error:
        return Check("fusermount3", False, False, f"{FUSERMOUNT}: {error.strerror}", purpose, _install("fuse3"))
    if status.st_uid == 0 and status.st_mode & stat.S_ISUID:
        return Check("fusermount3", True, False, f"{FUSERMOUNT}, setuid", purpose)
    mend = sudo(f"chmod u+s {FUSERMOUNT}")
    return Check("fusermount3", False, False, f"{FUSERMOUNT} is not setuid root", purpose, mend)


def _mtab() -> Check:
    """fusermount3 reads there whose mounts are whose; a Debian that never booted lacks it."""
    purpose = purposes(need("/etc/mtab"))
    if os.access(MTAB, os.R_OK):
        return Check(str(MTAB), True, False, "there", purpose)
    return Check(str(MTAB), False, False, "not there", purpose, sudo(f"ln -sf ../proc/self/mounts {MTAB}"))


def _pyfuse3() -> Check:
    purpose = purposes(need("pyfuse3"))
    try:
        import pyfuse3
    except ImportError as error:
        return Check("pyfuse3", False, False, str(error), purpose, "rm -r .venv; ./uml doctor")
    return Check("pyfuse3", True, False, f"{pyfuse3.__version__}", purpose)
