"""What runs inside the guest: shell scripts for busybox's ash, and the lines that the host writes for them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from runtime.guest import cpio, network
from runtime.guest.kernel_modules import KernelModules

CONTROL_TAG = "umlfs"
HERE = "/run/umlfs"
"""Where the agent has its things in the guest's root."""
VOLATILE: Final = "/run/"
"""What is below it is in memory, whatever the root is: places can be made there."""
DISK_NAME: Final = "UMLFS_UBD"
"""The udev property that is a disk's name."""
DEVICE_LINKS = {
    b"fd": b"/proc/self/fd",
    b"stdin": b"/proc/self/fd/0",
    b"stdout": b"/proc/self/fd/1",
    b"stderr": b"/proc/self/fd/2",
}
"""What every system has in its /dev but the kernel does not make."""


class Mount(NamedTuple):
    """A line of a guest's fstab."""

    device: str
    place: str
    """The mount point, an absolute path in the guest's root."""
    kind: str = "virtiofs"
    options: str = "rw"
    file: str = ""
    """The one file in it that is to be at the place, in the place of the whole."""
    announced: bool = False
    """The announcer tells the guest's programs what the host changes in it."""

    @property
    def apart(self) -> bool:
        """Whether all of it is mounted at a place of ours too."""
        return bool(self.file) or self.announced

    def whole(self) -> Mount:
        """The mount at a place of ours. The announcer's is writable, or its kernel would not let it do anything."""
        options = "rw" if self.announced else self.options
        return self._replace(place=f"{HERE}/files/{self.device}", file="", options=options)

    def line(self, below: str = "") -> str:
        if self.file:
            inside = _escape(f"{self.whole().place}/{self.file}")
            return f"{inside} {_escape(below + self.place)} none bind 0 0\n"
        return f"{_escape(self.device)} {_escape(below + self.place)} {self.kind} {_escape(self.options)} 0 0\n"


class Announcer(NamedTuple):
    """What tells a guest's programs of changes that others make (`announcer.c`)."""

    program: bytes
    gid: int
    """The group that it is in, and nobody else."""


class Link(NamedTuple):
    """A further name of a disk, and of its partitions."""

    name: str
    """`ubda`"""
    disk: str
    """What the kernel calls it at boot: `vda`."""
    device: int
    """The number of its virtio-uml device, which is the disk's for as long as the guest lives."""


@dataclass(frozen=True, slots=True)
class Init:
    """How a guest that stays up goes on when its root is there."""

    program: str | None = None
    """What becomes process 1. By default that of `USUAL_INITS` which the root has; if it has none, and for an empty
    text, the agent's own process stays."""
    arguments: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    """Comes on top of what the kernel gives its init."""


USUAL_INITS: Final = ("/sbin/init", "/etc/init", "/bin/init")
"""Where the kernel itself looks, but for the shell, which would have nobody to talk to."""
KERNEL_ENVIRONMENT: Final = {"HOME": "/", "TERM": "linux"}
"""What the kernel gives its init."""


@dataclass(frozen=True, slots=True)
class Boot:
    """What a guest is to make of its devices."""

    root: Mount
    """The root filesystem; its place is ignored."""
    overlay: bool
    """The root is only read: changes go to memory."""
    mounts: Sequence[Mount] = ()
    links: Sequence[Link] = ()
    disk_slots: Sequence[int] = ()
    """The numbers of the virtio-uml devices that disks may come to later."""
    hostname: str = "umlfs"
    init: Init | None = None
    """None for a guest that only runs the jobs it is given."""
    lock_modules: bool = False
    """No kernel module is loaded once all that the guest needs are."""
    network: network.GuestNetwork = field(default_factory=network.GuestNetwork)
    modules: KernelModules | None = None
    """Those of the kernel, on a device of their own."""
    stand_ins: Sequence[cpio.CpioEntry] = ()
    """What is in the overlay from the start."""
    announcer: Announcer | None = None
    """Tells of the host's changes in mounts that are `announced`."""

    @property
    def writes(self) -> bool:
        """Whether something is written that outlives the guest."""
        return not self.overlay or any("ro" not in mount.options.split(",") for mount in self.mounts)


def _escape(text: str) -> str:
    """A field of an fstab, in the escapes that glibc's getmntent knows."""
    return "".join(f"\\{ord(c):03o}" if c in " \t\n\\" else c for c in text)


def script(name: str) -> str:
    """The text of one of the scripts beside this file."""
    return Path(__file__).with_name(name).read_text("utf-8")


def _bare(text: str) -> str:
    """A script, without here-documents, as short as it can be: the guest's shell reads 1 KiB at a time."""
    lines = (line.strip() for line in text.splitlines())
    return "\n".join(line for line in lines if line and not line.startswith("#"))


def archive(boot: Boot, load_modules: str) -> bytes:
    """What goes into the initramfs for this boot, after busybox, the modules and `init.sh`."""
    root = "/root" if not boot.overlay else "/lower"
    first = [
        Mount("proc", "/proc", "proc"),
        Mount("dev", "/dev", "devtmpfs"),
        Mount(CONTROL_TAG, HERE + "/control"),
        Mount(boot.root.device, root, boot.root.kind, boot.root.options),
    ]
    if boot.overlay:
        first.append(Mount("root", "/root", "overlay", "lowerdir=/lower,upperdir=/upper,workdir=/work,xino=on"))
    rest = [
        Mount("proc", "/proc", "proc"),
        Mount("sys", "/sys", "sysfs"),
        Mount("dev", "/dev", "devtmpfs"),
        Mount("devpts", "/dev/pts", "devpts", "gid=5,mode=620,ptmxmode=666"),
        Mount("shm", "/dev/shm", "tmpfs", "mode=1777"),
        # The initramfs is a tmpfs: what it has in /run goes along.
        Mount("/run", "/run", "none", "rbind"),
        Mount("/bin/busybox", HERE + "/busybox", "none", "bind"),
    ]
    agent = script("agent.sh") + script("locks.sh")
    texts = {
        "fstab.root": "".join(mount.line() for mount in first),
        "fstab": "".join(mount.line("/root") for mount in rest),
        "places.sh": _places(boot),
        "modules.sh": load_modules,
        "links.sh": "".join(f"link {link.name} {link.disk}\n" for link in boot.links),
        "network.sh": network.setup_script(boot.network, HERE, overlay=boot.overlay),
        "reconnect.sh": network.reconnect_script(boot.network, HERE),
        "mounts.sh": _resolver(boot)
        + (_mounts(boot) if boot.mounts else "")
        + _announcer(boot)
        + (_LOCK if boot.lock_modules else ""),
        "agent.sh": agent + (_throwaway(boot) if boot.init is None else _first(boot.init)),
        "serve.sh": agent + script("lasting.sh") if boot.init is not None else "",
    }
    texts["fstab.files"] = "".join(mount.whole().line() for mount in boot.mounts if mount.apart)
    for depth, mounts in enumerate(_by_depth(boot.mounts)):
        texts[f"fstab.mounts{depth}"] = "".join(mount.line() for mount in mounts)
    here = HERE.lstrip("/").encode()
    entries = [cpio.directory(name) for name in (b"lower", b"root", b"run", b"upper", b"work")]
    entries += [cpio.directory(here, 0o700), cpio.directory(here + b"/control", 0o700)]
    entries += [cpio.file(here + b"/busybox", b"", 0o600)]
    entries += [cpio.directory(here + b"/files/" + each.device.encode()) for each in boot.mounts if each.apart]
    if boot.announcer is not None:
        entries.append(cpio.file(here + b"/announcer", boot.announcer.program, 0o700))
    if boot.network:
        entries.append(cpio.file(here + f"/{network.PROGRAM}".encode(), network.program(), 0o700))
    entries += boot.stand_ins
    entries += [cpio.directory(here + b"/dev/" + name) for name in (b"pts", b"shm")]
    entries += [cpio.symlink(here + b"/dev/" + name, target) for name, target in DEVICE_LINKS.items()]
    texts.update((f"disk.{link.device}", f"{DISK_NAME}={link.name}\n") for link in boot.links)
    entries += [
        cpio.file(here + b"/" + name.encode(), text.encode(errors="surrogateescape"), 0o600)
        for name, text in texts.items()
    ]
    if boot.modules is not None:
        entries += [node.entry(here + b"/dev") for node in boot.modules.nodes]
        entries.append(cpio.symlink(here + b"/modprobe", f"{HERE}/busybox".encode()))
    if boot.network.resolver:
        entries.append(cpio.file(here + b"/resolv.conf", boot.network.resolver.encode()))
    if boot.init is not None:
        entries += _systemd()
    if boot.init is not None and boot.network:
        entries += network.managers_entries(boot.network)
    if boot.links or boot.disk_slots:
        devices = [*(link.device for link in boot.links), *boot.disk_slots]
        rules = "".join(map(udev_rule, devices)).encode()
        entries += [cpio.directory(name) for name in (b"run/udev", b"run/udev/rules.d")]
        entries.append(cpio.file(b"run/udev/rules.d/60-ubd.rules", rules))
    return cpio.archive(entries)


def _systemd() -> list[cpio.CpioEntry]:
    """What has a guest's systemd leave the agent's mounts alone at a shutdown: it could not unmount them.

    Not in run/systemd/system, whose being there says that systemd runs.
    """
    entries = [cpio.directory(b"run/systemd"), cpio.directory(b"run/systemd/system.control")]
    for name in ("control", "busybox"):
        place = f"run/systemd/system.control/run-umlfs-{name}.mount.d".encode()
        content = b"[Unit]\nDefaultDependencies=no\n"
        entries += [cpio.directory(place), cpio.file(place + b"/umlfs.conf", content)]
    return entries


def _throwaway(boot: Boot) -> str:
    return f"settle={'sync' if boot.writes else ':'}\n{script('throwaway.sh')}"


def _first(init: Init) -> str:
    """The script of a process 1 that starts the agent and goes on to `init`."""
    quote = shlex.quote
    environment = {**KERNEL_ENVIRONMENT, **init.environment}
    variables = " ".join(quote(f"{name}={value}") for name, value in environment.items())
    arguments = " ".join(map(quote, init.arguments))
    lines = [script("first.sh"), f'become_init() {{ exec $here/busybox env -i {variables} "$1" {arguments}; }}']
    if init.program:
        why = quote(f"{init.program}: no such program in the root to be its init")
        lines.append(f"[ -x {quote(init.program)} ] || fail {why}")
    inits = USUAL_INITS if init.program is None else filter(None, [init.program])
    lines.append(" ".join(["begin", *map(quote, inits)]))
    return "\n".join(lines) + "\n"


def program_script(number: int, arguments: Sequence[str] = ()) -> bytes:
    """The script of a job that brings its program, which gets the job's number and `arguments`. Its name spares it at a
    shutdown, as `spared` in `agent.sh` does others that wait for the host."""
    words = shlex.join([str(number), *arguments])
    lines = [f"echo $$ >{HERE}/pid.{number}", "cd /", f"exec -a @/program {HERE}/control/{number}/program {words}"]
    return "\n".join(lines).encode() + b"\n"


def udev_rule(device: int) -> str:
    """What tells a guest's udev the name of the disk that a virtio-uml device has now: it is written down in a file.
    Neither the kernel's names (given out anew when drivers are bound again) nor serial numbers (anybody's choice) say
    for sure which disk it is; its place among the devices does."""
    condition = f'SUBSYSTEM=="block", KERNELS=="virtio-uml.{device}", IMPORT{{file}}=="{HERE}/disk.{device}"'
    return f'{condition}, SYMLINK+="$env{{{DISK_NAME}}}%n"\n'


def _places(boot: Boot) -> str:
    """The script that sees to it that what every guest mounts has its place, and makes what is not on any disk."""
    made = _MAKE if boot.overlay else _MISSING
    lines = [_have((f"/root/{name}" for name in ("proc", "sys", "dev", "run", "tmp")), made)]
    lines.append(f"cp -RPp {HERE}/dev/. /dev")
    if boot.modules is not None:
        lines.append(boot.modules.script(HERE).rstrip())
    lines.append(f"echo {shlex.quote(boot.hostname)} >/proc/sys/kernel/hostname")
    if boot.overlay:
        lines.append(f"[ ! -f /root/etc/hosts ] || echo 127.0.1.1 {shlex.quote(boot.hostname)} >>/root/etc/hosts")
    return "\n".join(lines) + "\n"


def _mounts(boot: Boot) -> str:
    """The script that mounts what this guest has besides, from inside its root: symlinks lead where they should. What
    lies inside another mount has its place in that, where nothing is made."""
    lines = []
    if any(mount.apart for mount in boot.mounts):
        lines.append(f'mount -a -T {HERE}/fstab.files 2>{HERE}/errors || fail "$(cat {HERE}/errors)"\n')
    for depth, mounts in enumerate(_by_depth(boot.mounts)):
        missing = _NOT_INSIDE if depth else _MAKE if boot.overlay else _MISSING
        places = [mount.place for mount in mounts if not mount.file]
        if made := [place for place in places if place.startswith(VOLATILE) and not depth]:
            lines.append(_have(made, _MAKE))
        lines.append(_have((place for place in places if place not in made), missing))
        files = [mount.place for mount in mounts if mount.file]
        if files:
            lines.append(_have_files(files, make=boot.overlay and not depth))
        lines.append(f'mount -a -T {HERE}/fstab.mounts{depth} 2>{HERE}/errors || fail "$(cat {HERE}/errors)"\n')
    return "".join(lines)


def _announcer(boot: Boot) -> str:
    """The script that starts it, and leaves its number in `announcer`."""
    places = [mount.whole().place for mount in boot.mounts if mount.announced]
    if boot.announcer is None:
        return ""
    words = shlex.join([str(boot.announcer.gid), f"{HERE}/control/changes", f"{HERE}/control/announced", *places])
    return f"(exec -a @/announcer {HERE}/announcer {words}) </dev/null >/dev/null 2>&1 &\nannouncer=$!\n"


def _by_depth(mounts: Iterable[Mount]) -> list[list[Mount]]:
    """The mounts that lie in no other, those that lie in one of them, and so on."""
    found: list[list[Mount]] = []
    depths: dict[str, int] = {}
    for mount in sorted(mounts, key=lambda mount: mount.place):
        depth = sum(mount.place.startswith(f"{place}/") for place in depths)
        depths[mount.place] = depth
        if depth == len(found):
            found.append([])
        found[depth].append(mount)
    return found


def _resolver(boot: Boot) -> str:
    return "" if boot.overlay else network.resolver_script(boot.network, HERE)


_LOCK: Final = f"""\
[ -d /sys/bus/virtio/drivers/virtio_blk ] || for module in {HERE}/later/*; do
    [ ! -e "$module" ] || insmod "$module"
done
echo 1 >/proc/sys/kernel/modules_disabled
"""
"""Load what may be needed later (see disk.sh), and then no more."""


def _have_files(places: Iterable[str], *, make: bool) -> str:
    """As `_have`, for files: an empty one is made where nothing is, and the boot fails where a directory is."""
    missing = 'mkdir -p "${place%/*}/" && : >"$place" || fail "$place: cannot be made"'
    refused = 'fail "$place: no such file in the guest; make it first"'
    words = " ".join(map(shlex.quote, places))
    return _HAVE_FILES.format(places=words, missing=missing if make else refused)


def _have(places: Iterable[str], missing: str) -> str:
    """A script for which `places` are directories afterwards: it does `missing` to those that are not.

    It is sourced: whatever it sets it sets in a function, for the positional parameters are its caller's.
    """
    words = " ".join(map(shlex.quote, places))
    return _HAVE.format(places=words, missing=missing)


_HAVE_FILES = """\
have_files() {{
    local place
    for place; do
        [ ! -d "$place" ] || fail "$place: a directory, and what is to be mounted there is a file"
        [ -e "$place" ] || {{ {missing}; }}
    done
}}
have_files {places}
"""
_HAVE = """\
have() {{
    local place
    for place; do
        shift
        [ -d "$place" ] || set -- "$@" "$place"
    done
    [ $# = 0 ] || {missing}
}}
have {places}
"""
# Only where that changes nothing but the overlay.
_MAKE = f'mkdir -m 1777 -p "$@" 2>{HERE}/errors || fail "$(cat {HERE}/errors)"'
_NOT_INSIDE = 'fail "$1: no such directory in what is mounted there; make it first"'
_MISSING = 'fail "${1#/root}: no such directory there; make it first, or leave out --rw"'


def explain(report: str) -> str:
    """What init's report of a failed boot means, in one line: busybox's words with the guest's own names."""
    line = report.strip().splitlines()[0] if report.strip() else "the guest gave no reason"
    failed = _FAILED_MOUNT.match(line) or _FAILED_MKDIR.match(line)
    if failed is None:
        return line
    place = failed["place"].removeprefix("/root") or "/"
    if place in ("/", "/lower"):
        return f"the root cannot be mounted: {failed['why']}; a disk that is the root has a filesystem on it"
    return f"{place}: the guest cannot mount anything there: {failed['why']}; make it a directory first"


_FAILED_MOUNT = re.compile(r"mount: mounting .* on (?P<place>/.*) failed: (?P<why>.*)")
_FAILED_MKDIR = re.compile(r"mkdir: can't create directory '(?P<place>/.*)': (?P<why>.*)")


def job_script(
    command: Sequence[str],
    *,
    number: int,
    directory: str,
    must_enter: bool,
    environment: Mapping[str, str],
    user: str | None,
) -> bytes:
    """The script of a job: becomes `command`, or a shell if that is empty. With `must_enter` it fails where
    `directory` does not exist; else it then starts in `/`."""
    quote = shlex.quote
    lines = [f"__control={HERE}/control __number={number} __busybox={HERE}/busybox", _bare(script("job.sh"))]
    who = user if user is not None else "root"
    lines.append(f"be {quote(who)} || fail 125 {quote(who + ': no such user in the guest')}")
    otherwise = f"fail 125 {quote(directory + ': no such directory in the guest')}" if must_enter else "cd /"
    lines.append(f"cd -- {quote(directory)} 2>/dev/null || {otherwise}")
    lines.append("unset OLDPWD SHLVL TERM")
    lines += [f"export {name}={quote(value)}" for name, value in environment.items()]
    lines.append("become " + " ".join(map(quote, command)) if command else "shell")
    return "\n".join(lines).encode(errors="surrogateescape") + b"\n"
