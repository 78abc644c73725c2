"""The guest's scripts, each run by busybox in a root made for it: namespaces and a chroot instead of a kernel.

They share one shell, piece by piece, and what one sets another finds: what is sourced must leave all as it was.
"""

from __future__ import annotations

import os
import shlex
import shutil
import stat
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from runtime import guest
from runtime.guest import Boot, Init, Link, Mount
from runtime.guest.initramfs import find_busybox
from runtime.guest.kernel_modules import KernelModules, ModuleNode
from tests import needs

SECONDS: Final = 30
MOUNTS: Final = (Mount("mount0", "/new"), Mount("mount1", "/a b/it's"), Mount("mount2", "/tmp"))
SHADOWS: Final = """\
for applet in mount cp ip; do
    eval "$applet() { echo \\"$applet \\$*\\" >>/said; }"
done
umount() { :; }
ulimit() { :; }
exec 9</jobs
read() {
    case $2 in
    number) command read "$@" <&9 ;;
    *) command read "$@" ;;
    esac
}
"""
"""What changes the system, or needs a kernel of its own, says so instead. Jobs come from a file that is read
on each time, not anew."""


class FakeRoot:
    """A guest's root, with what the host has put into the initramfs."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.here = top / guest.HERE.lstrip("/")

    def fill(self, boot: Boot) -> None:
        """Unpack the archive of `boot`, and busybox."""
        busybox = find_busybox()
        archive = guest.archive(boot, "true")
        subprocess.run([busybox, "cpio", "-idu"], input=archive, cwd=self.top, check=True, capture_output=True)
        for name in ("bin", "proc", "dev", "tmp", "root/tmp"):
            (self.top / name).mkdir(parents=True, exist_ok=True)
        for place in (self.top / "bin/busybox", self.here / "busybox"):
            shutil.copyfile(busybox, place)
            place.chmod(0o755)
        (self.top / "shadows.sh").write_text(SHADOWS)
        (self.top / "jobs").touch()
        for name in ("next", "report"):
            (self.here / "control" / name).touch()
        os.mknod(self.top / "dev/null", 0o666 | 0o020000, os.makedev(1, 3))

    def job(self, number: int, script: str, **files: str) -> None:
        """What the control filesystem has of a job; streams are files here."""
        directory = self.here / "control" / str(number)
        directory.mkdir(parents=True)
        names = {"stdin": "", "stdout": "", "stderr": "", "signals": "", "status": "", "script": script, **files}
        for name, text in names.items():
            (directory / name).write_text(text)

    def jobs(self, *lines: str) -> None:
        (self.top / "jobs").write_text("".join(f"{line}\n" for line in lines))

    def said(self, number: int, name: str) -> str:
        return (self.here / "control" / str(number) / name).read_text()

    def run(self, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a script in the root as process 2 of its own world, whose /proc it cannot write to: what ends a guest
        would end this host."""
        proc = shlex.quote(str(self.top / "proc"))
        enter = f'mount -t proc -o ro proc {proc} && exec chroot "$@"'
        world = [*needs.mount_namespace(), "--uts", "--pid", "--fork", "--kill-child"]
        words = [*world, "sh", "-c", enter, "sh", str(self.top), "/bin/busybox", "sh", "-c", script, "sh", *arguments]
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        return subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            env=environment,
            check=False,
        )


@pytest.fixture
def root(tmp_path: Path) -> FakeRoot:
    return FakeRoot(tmp_path)


def boot(*, overlay: bool = True, mounts: Sequence[Mount] = MOUNTS, init: Init | None = None) -> Boot:
    links = [Link("ubda", "vda", 5)]
    modules = (
        KernelModules("6.1.0", [ModuleNode("loop-control", stat.S_IFCHR, os.makedev(10, 237))]) if overlay else None
    )
    return Boot(Mount("root", "/"), overlay=overlay, mounts=mounts, links=links, init=init, modules=modules)


# What is sourced ------------------------------------------------------------------------------

KEPT: Final = """\
. /shadows.sh
link() { echo "link $*" >>/said; }
fail() { echo "failed: $*"; exit 1; }
state() { set; echo "$-"; pwd; trap; }
file=$1
set -- one 'two words' ''
state >/before
. "$file"
state >/after
diff /before /after
for each; do echo "[$each]"; done
"""


@pytest.mark.parametrize("name", ["modules.sh", "places.sh", "links.sh", "mounts.sh"])
def test_what_is_sourced_leaves_its_caller_as_it_was(root: FakeRoot, name: str) -> None:
    root.fill(boot())
    done = root.run(KEPT, f"{guest.HERE}/{name}")
    assert (done.stdout, done.returncode) == ("[one]\n[two words]\n[]\n", 0)
    assert all("can't create /proc/sys/kernel/" in line for line in done.stderr.splitlines())


def test_places_that_are_missing_are_made(root: FakeRoot) -> None:
    root.fill(boot())
    root.run(KEPT, f"{guest.HERE}/mounts.sh")
    assert (root.top / "a b/it's").is_dir()
    assert (root.top / "new").is_dir()
    assert (root.top / "said").read_text() == f"mount -a -T {guest.HERE}/fstab.mounts0\n"


def test_modules_have_their_place(root: FakeRoot) -> None:
    """Where there is a /lib to have it in: a link that leads nowhere is none."""
    root.fill(boot())
    fstab, lib = root.here / "fstab", root.top / "root/lib"
    before = fstab.read_text()
    root.run(KEPT, f"{guest.HERE}/places.sh")
    assert fstab.read_text() == before
    lib.symlink_to("usr/lib")
    root.run(KEPT, f"{guest.HERE}/places.sh")
    assert fstab.read_text() == before
    (root.top / "root/usr/lib").mkdir(parents=True)
    root.run(KEPT, f"{guest.HERE}/places.sh")
    assert fstab.read_text() == before + "modules /root/lib/modules/6.1.0 virtiofs ro 0 0\n"
    assert (lib / "modules/6.1.0").is_dir()


def test_a_place_that_cannot_be_made_is_named(root: FakeRoot) -> None:
    root.fill(boot(overlay=False))
    (root.top / "new").mkdir()
    done = root.run(KEPT, f"{guest.HERE}/mounts.sh")
    assert done.stdout == "failed: /a b/it's: no such directory there; make it first, or leave out --rw\n"
    (root.top / "new").rmdir()
    (root.top / "new").write_text("no directory")
    (root.here / "mounts.sh").write_text(guest._mounts(boot()))
    done = root.run(KEPT, f"{guest.HERE}/mounts.sh")
    assert done.stdout == "failed: mkdir: can't create directory '/new': File exists\n"


# Process 1 of a machine that stays up ---------------------------------------------------------

BEGIN: Final = f". /shadows.sh; . {guest.HERE}/agent.sh"
INIT: Final = """\
#!/bin/busybox sh
for each; do echo "[$each]"; done
env | sort
"""


@pytest.mark.parametrize("mounts", [(), MOUNTS])
@pytest.mark.parametrize("program", [None, "/sbin/init", "/opt/my init"])
def test_the_init_gets_its_words(root: FakeRoot, mounts: Sequence[Mount], program: str | None) -> None:
    root.fill(boot(mounts=mounts, init=Init(program, ("single", "it's"), {"A": "b c"})))
    place = root.top / (program or "sbin/init").lstrip("/")
    place.parent.mkdir(exist_ok=True)
    place.write_text(INIT)
    place.chmod(0o755)
    done = root.run(BEGIN, "word", "of the kernel")
    assert done.stdout.splitlines()[:2] == ["[single]", "[it's]"]
    assert {"A=b c", "HOME=/", "TERM=linux"} <= set(done.stdout.splitlines())
    assert done.stderr == ""


def test_a_missing_init_is_named(root: FakeRoot) -> None:
    root.fill(boot(init=Init("/no/init")))
    done = root.run(f"sleep() {{ :; }}; {BEGIN}")
    assert done.returncode == 1
    assert (root.here / "control/report").read_text() == "/no/init: no such program in the root to be its init\n"


# Whether it is up -----------------------------------------------------------------------------

SYSTEMCTL: Final = """\
#!/bin/busybox sh
case "$(/bin/busybox cat /asked 2>/dev/null)" in
'') echo 1 >/asked; exit 1 ;;
1) echo 2 >/asked; echo starting; exit 1 ;;
*) echo degraded; exit 1 ;;
esac
"""


def processes(root: FakeRoot, program: str, *children: str) -> None:
    """A /proc with process 1, which runs `program`, and its children."""
    shutil.rmtree(root.top / "processes", ignore_errors=True)
    for number, name in enumerate(("one", *children), 1):
        directory = root.top / f"processes/{number}"
        directory.mkdir(parents=True)
        (directory / "status").write_text(f"Name:\t{name}\nPid:\t{number}\nPPid:\t{int(number > 1)}\n")
    (root.top / "processes/1/exe").symlink_to(program)


def test_a_guest_is_up(root: FakeRoot) -> None:
    """Not before its init has done what it does first."""
    root.fill(boot())
    (root.here / "up.sh").write_text(guest.script("up.sh").replace("${1:-/proc}", "/processes"))
    systemctl = root.top / "bin/systemctl"
    systemctl.write_text(SYSTEMCTL)
    systemctl.chmod(0o755)
    ours = f"{guest.HERE}/busybox"
    for program, children, change, state in (
        ("/bin/sleep", (), "", "running"),
        ("/usr/lib/systemd/systemd", (), "", "degraded"),
        (ours, (), f"touch {guest.HERE}/stays", "running"),
        ("/sbin/init", ("rc", "agetty"), "rm -r /processes/2", "running"),
        ("/sbin/init", ("rcS",), "cp -r /getty/. /processes/2", "running"),
        ("/bin/busybox", ("getty",), "", "running"),
    ):
        processes(root, program, *children)
        (root.top / "getty").mkdir(exist_ok=True)
        (root.top / "getty/status").write_text("Name:\tgetty\nPPid:\t1\n")
        later = f"(sleep 0.4; {change}; echo changed) &" if change else ""
        done = root.run(f"{later} . {guest.HERE}/up.sh; wait")
        assert done.stdout == f"{'changed' * bool(change)}\n{state}\n".lstrip(), (program, children, done)
    assert (root.top / "asked").read_text() == "2\n"


# Agents ---------------------------------------------------------------------------------------

ENDLESS: Final = "while :; do sleep 60; done"
ECHO: Final = "cat; echo out; echo err >&2; grep SigIgn /proc/self/status; exit 3\n"


def test_the_agent_of_a_throwaway_guest(root: FakeRoot) -> None:
    root.fill(boot())
    agent = root.here / "agent.sh"
    text = agent.read_text()
    assert ENDLESS in text
    agent.write_text(text.replace(ENDLESS, "exit 0"))
    root.job(1, ECHO, stdin="in\n")
    root.job(2, "echo out; echo err >&2; sleep 100 & exit 0\n")
    root.job(3, "kill -9 $$\n")
    root.jobs("1 pipe pipe pipe", "2 null pipe output", "3 null null null")
    root.run(BEGIN, "a", "b")
    assert root.said(1, "stdout").startswith("in\nout\n")
    assert (root.said(1, "stderr"), root.said(1, "status")) == ("err\n", "exit 3\n")
    assert (root.said(2, "stdout"), root.said(2, "stderr")) == ("out\nerr\n", "")
    assert (root.said(2, "status"), root.said(3, "status")) == ("exit 0\n", "exit 137\n")
    assert (root.here / "control/report").read_text() == "settled\n"


def test_the_agent_of_a_machine_that_stays_up(root: FakeRoot) -> None:
    """Jobs run side by side: the first waits for the second. No signal is ignored in them."""
    root.fill(boot(init=Init()))
    root.job(1, "until [ -e /second ]; do sleep 0.01; done; " + ECHO, stdin="in\n")
    root.job(2, "echo >/second; grep SigIgn /proc/self/status\n")
    root.jobs("1 pipe pipe pipe", "2 null pipe output")
    wait = "until [ -s control/1/status ] && [ -s control/2/status ]; do sleep 0.01; done"
    root.run(f". /shadows.sh; . {guest.HERE}/serve.sh 2>/dev/null; cd {guest.HERE}; {wait}")
    ignored = subprocess.run(["grep", "SigIgn", "/proc/self/status"], capture_output=True, text=True, check=True).stdout
    assert root.said(2, "stdout") == ignored
    assert root.said(1, "stdout") == f"in\nout\n{ignored}"
    assert (root.said(1, "stderr"), root.said(1, "status")) == ("err\n", "exit 3\n")
    assert root.said(2, "status") == "exit 0\n"
