"""What a guest does to try control groups, of which its own kernel has all: python -m tests.jail.groups"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

from runtime.jail.cgroup import Group, NoGroupError
from runtime.jail.confined import run_confined
from runtime.jail.layers import Layer
from runtime.machines import share
from runtime.process.control_group import ENDING, joined
from runtime.process.out_of_memory import Toll
from runtime.process.share import Share

MIB: Final = 1 << 20
MOUNT: Final = Path("/sys/fs/cgroup")
BOTH: Final = "+memory +pids"


def main() -> None:
    """Print a line for each thing tried."""
    subprocess.run(["mount", "-t", "cgroup2", "cgroup2", MOUNT], check=True)
    print("nothing is limited:", refusal())
    (MOUNT / "cgroup.subtree_control").write_text(BOTH)
    print("the host's root group:", *tried())
    leaf = MOUNT / "own/leaf"
    leaf.mkdir(parents=True)
    (leaf / "cgroup.procs").write_text("0")
    print("delegated nothing:", refusal())
    (MOUNT / "own/cgroup.subtree_control").write_text(BOTH)
    print("delegated:", *tried())
    layers = run_confined(["/bin/busybox", "true"], 60, group=True).layers
    print("a jail:", Layer.CGROUP in layers.present or layers.describe())
    limited = MOUNT / "own/umlfs-machine"
    limited.mkdir()
    (limited / "cgroup.procs").write_text("0")
    print("shared:", *shared())
    print("limited already:", refusal())
    print("killed:", *killed(limited))
    print("left:", sorted(path.name for path in MOUNT.rglob("umlfs-*")))


def shared() -> list[str]:
    """What two processes of one compartment, and one of another, have; what a change of it is; what they leave."""
    parent = MOUNT / "own"
    said = []
    ends = [os.pipe() for _ in range(3)]
    up = os.pipe()
    for name, end in zip(("one", "one", "two"), ends, strict=True):
        if not os.fork():
            with joined(name, Share(memory=64 * MIB).limits(), "--share"):
                os.write(up[1], b"x")
                os.read(end[0], 1)
            os._exit(0)
    for _ in ends:
        os.read(up[0], 1)
    group = parent / "umlfs-one"
    said.append(str(len((group / "cgroup.procs").read_text().split())))
    share.change(group, Share(memory=32 * MIB))
    said.append(share.told(group))
    for number, end in enumerate(ends):
        os.write(end[1], b"x")
        os.wait()
        said.append(",".join(sorted(each.name[6:] for each in parent.glob("umlfs-*") if each.name != ENDING)))
        if number == 1:
            said.append(share.told(parent / "umlfs-two"))
    return said


def refusal() -> str:
    """Why there can be no group."""
    try:
        group = Group.make("umlfs-test", MIB)
    except NoGroupError as error:
        return str(error)
    return f"{group.path} was made"


def tried() -> list[int]:
    """How a memory bomb and a fork bomb end in a group."""
    group = Group.make("umlfs-test", MIB)
    (group.path / "memory.max").write_text(str(16 * MIB))
    memory = within(group, lambda: bytearray(64 * MIB))
    (group.path / "pids.max").write_text("1")
    found = [memory, within(group, os.fork)]
    group.remove()
    return found


def killed(group: Path) -> list[str]:
    """What is said of processes that the host's kernel has killed: at the limit of their group, and at that of the one
    above it; and of one that somebody else has."""
    said = []
    (group.parent / "memory.max").write_text(str(32 * MIB))
    for limit in (str(16 * MIB), "max"):
        (group / "memory.max").write_text(limit)
        said.append(last_words(lambda: bytearray(64 * MIB)))
    said.append(last_words(lambda: os.kill(os.getpid(), signal.SIGKILL)))
    return said


def last_words(work: Callable[[], object]) -> str:
    toll = Toll.of(os.getpid())
    assert toll is not None
    child = os.fork()
    if not child:
        work()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    return repr(toll.reason())


def within(group: Group, work: Callable[[], object]) -> int:
    """The error of `work` in the group; -N if signal N ended it."""
    child = os.fork()
    if not child:
        try:
            os.write(group.entrance(), b"0")
            work()
        except OSError as error:
            os._exit(error.errno or 255)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def reason(limit: int) -> str:
    return f"its control group may take {limit} MiB of this host's memory, and it wanted more"


EXPECTED: Final = f"""\
nothing is limited: {MOUNT} does not limit memory and pids of its groups
the host's root group: {-signal.SIGKILL} {errno.EAGAIN}
delegated nothing: {MOUNT}/own does not limit memory and pids of its groups
delegated: {-signal.SIGKILL} {errno.EAGAIN}
a jail: True
shared: 2 one:mem=32M machine,one,two machine,two two:mem=64M machine
limited already: the machine has limits of its own: --memory-max, --cpu-quota
killed: {reason(16)!r} {reason(32)!r} ''
left: ['umlfs-ending', 'umlfs-machine']
"""

if __name__ == "__main__":
    main()
