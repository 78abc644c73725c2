"""What a kernel can do, as it tells itself: its words (`--help`) and how it was built (`--showconfig`).

Asked once for each kernel and kept. Nothing here knows of versions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from runtime.host import cache
from runtime.kernels.kernel import Kernel, ask, configuration, identity

OWN: Final = frozenset(
    {
        *("mem", "umid", "uml_dir", "root", "initrd", "con", "ssl", "ubd", "eth", "vec", "mconsole", "xterm", "hostfs"),
        *("iomem", "nosysemu", "ssl-non-raw", "noreboot", "quiet", "debug", "fake_ide", "dtb", "ncpus", "mode"),
        *("seccomp", "time-travel", "time-travel-start", "jail", "honeypot", "skas0"),
    }
)
"""Words that some UML kernel takes or once took: what is none of them may be any Linux's. Which of them a kernel knows
it is asked."""
TABLE: Final = {
    "seccomp=": "system calls without ptrace",
    "ncpus=": "several processors",
    "time-travel=": "time travel",
    "dtb=": "device trees",
    "iomem=": "memory shared with the host (/dev/mmapper)",
    "eth=": "the old network devices",
}
OPTIONS: Final = {
    "CONFIG_FUSE_PASSTHROUGH": "FUSE passthrough",
    "CONFIG_VIRTIO_FS": "virtio-fs",
    "CONFIG_VIRTIO_BLK": "virtio-blk",
    "CONFIG_VIRTIO_NET": "virtio-net",
    "CONFIG_VIRTIO_BALLOON": "memory balloon",
    "CONFIG_VSOCKETS": "vsock",
    "CONFIG_UML_NET_VECTOR": "vector network devices",
    "CONFIG_OVERLAY_FS": "overlay",
    "CONFIG_HOSTFS": "hostfs",
    "CONFIG_BTRFS_FS": "btrfs",
    "CONFIG_XFS_FS": "XFS",
    "CONFIG_F2FS_FS": "F2FS",
    "CONFIG_EROFS_FS": "EROFS",
    "CONFIG_SQUASHFS": "squashfs",
    "CONFIG_SQUASHFS_XATTR": "extended attributes of squashfs",
    "CONFIG_UDF_FS": "UDF",
    "CONFIG_NTFS3_FS": "NTFS",
    "CONFIG_EXFAT_FS": "exFAT",
    "CONFIG_OCFS2_FS": "OCFS2",
    "CONFIG_GFS2_FS": "GFS2",
    "CONFIG_DM_CRYPT": "dm-crypt",
    "CONFIG_BLK_DEV_MD": "software RAID",
    "CONFIG_SECURITY_LANDLOCK": "Landlock",
    "CONFIG_MODULES": "modules",
    "CONFIG_SMP": "SMP",
    "CONFIG_GCOV_KERNEL": "coverage (gcov)",
    "CONFIG_GDB_SCRIPTS": "gdb's scripts",
    "CONFIG_KASAN": "KASAN",
}
"""What people ask for, by the option that it is built with."""
TRANSPORTS: Final = {
    "mcast": "CONFIG_UML_NET_MCAST",
    "ucast": "CONFIG_UML_NET_MCAST",
    "vde": "CONFIG_UML_NET_VDE",
    "pcap": "CONFIG_UML_NET_PCAP",
    "slip": "CONFIG_UML_NET_SLIP",
    "ethertap": "CONFIG_UML_NET_ETHERTAP",
}
"""Transports of the old network devices that are the kernel's alone, by the option that each is built with."""
MODULES: Final = {
    "ext4": "CONFIG_EXT4_FS",
    "fuse": "CONFIG_FUSE_FS",
    "ipv6": "CONFIG_IPV6",
    "nbd": "CONFIG_BLK_DEV_NBD",
    "overlay": "CONFIG_OVERLAY_FS",
    "virtio_balloon": "CONFIG_VIRTIO_BALLOON",
    "virtio_blk": "CONFIG_VIRTIO_BLK",
    "virtio_console": "CONFIG_VIRTIO_CONSOLE",
    "virtio_net": "CONFIG_VIRTIO_NET",
    "virtiofs": "CONFIG_VIRTIO_FS",
}
"""The build options of the modules that guests here need: what tells whether they are built in when the kernel
came without a modules directory."""
PROCESSORS: Final = "CONFIG_NR_CPUS"
"""The option that is the number of processors at most."""
BENCHMARKS: Final = ("CONFIG_RAID6_PQ_BENCHMARK", "CONFIG_XOR_BLOCKS")
"""Options whose code measures the processor at each boot."""

UNTOLD: Final = 64
"""Processors of a kernel that has several and does not tell how many: no UML kernel has more."""

_HEAD: Final = re.compile(r"([a-z][a-z_.-]*[a-z0-9]|[a-z][a-z_]*)", re.ASCII)


class Features(NamedTuple):
    """What one kernel can do."""

    version: str
    words: frozenset[str]
    """The words of its `--help`, without what follows them."""
    options: Mapping[str, str] = MappingProxyType({})
    """`y` or `m` (of `PROCESSORS` the number), of those options of its configuration that somebody here asks for."""

    def has_option(self, name: str) -> bool:
        """Whether it was built with the option, as a module or not."""
        return name in self.options

    def has_transport(self, name: str) -> bool:
        """Whether its old network devices have the transport, or it is none of `TRANSPORTS`."""
        return not self.options or name not in TRANSPORTS or self.has_option(TRANSPORTS[name])

    def knows(self, word: str) -> bool:
        """Whether the kernel takes the word called `word` (`ubd`, not `ubd0=FILE`), or it is none of UML's own."""
        return word in self.words or word not in OWN

    @property
    def has_seccomp(self) -> bool:
        """Processes of guests need not be traced (`seccomp=on`)."""
        return "seccomp" in self.words

    @property
    def has_time_travel(self) -> bool:
        return "time-travel" in self.words

    @property
    def processors_max(self) -> int:
        """How many processors a guest can have."""
        if "ncpus" not in self.words:
            return 1
        number = self.options.get(PROCESSORS, "")
        return int(number) if number.isdecimal() else UNTOLD


def features(kernel: Kernel) -> Features:
    """What the kernel can do. It is asked the first time: some milliseconds."""
    name = f"features-4-{identity(kernel.path)}"
    kept = (cache.load(name) or b"").decode("ascii", "replace").split("\n")
    if len(kept) == 3:  # it is whole
        return Features(kernel.version, frozenset(kept[0].split()), _pairs(kept[1]))
    words, options = parse_help(ask(kernel.path, "--help")), _options(kernel)
    if cache.store(name, f"{' '.join(sorted(words))}\n{' '.join(options)}\n".encode()):
        cache.prune("features-*", keep=16)
    return Features(kernel.version, words, _pairs(" ".join(options)))


def _options(kernel: Kernel) -> list[str]:
    """NAME=VALUE of those options of the kernel's configuration that are asked for here, and are not off."""
    built = configuration(kernel.path)
    return [
        f"{name}={built[name]}"
        for name in dict.fromkeys([*OPTIONS, *MODULES.values(), *TRANSPORTS.values(), *BENCHMARKS, PROCESSORS])
        if built.get(name) in ("y", "m") or (name == PROCESSORS and name in built)
    ]


def _pairs(text: str) -> dict[str, str]:
    return {name: value for name, _, value in (each.partition("=") for each in text.split())}


def parse_help(text: str) -> frozenset[str]:
    """The words of a kernel's `--help`: each begins a line, and what it does is indented below it."""
    heads = (_HEAD.match(line) for line in text.splitlines())
    return frozenset(found[1] for found in heads if found)


def abilities(kernel: Kernel) -> dict[str, str]:
    """What people ask for: `yes`, `module` or `no`, by its name."""
    known = features(kernel)
    found = {text: "yes" if word.rstrip("=") in known.words else "no" for word, text in TABLE.items()}
    answers = {"y": "yes", "m": "module"}
    return found | {text: answers.get(known.options.get(option, ""), "no") for option, text in OPTIONS.items()}
