"""What kind of filesystem something is on.

Some are made up by the kernel. The host's own mounts of them are no business of a guest: it has its own."""

from __future__ import annotations

import os
from typing import Final

from umlfs.syscalls import filesystem_type

# From include/uapi/linux/magic.h.
_MAGICS: Final = frozenset(
    {
        0x9FA0,  # proc
        0x6265_6572,  # sysfs
        0x1CD1,  # devpts
        0x0027_E0EB,  # cgroup
        0x6367_7270,  # cgroup2
        0x7363_6673,  # securityfs
        0x6462_6720,  # debugfs
        0x7472_6163,  # tracefs
        0xCAFE_4A11,  # bpf
        0x6165_676C,  # pstore
        0x6265_6570,  # configfs
        0x6573_5543,  # fusectl
        0x1980_0202,  # mqueue
        0x9584_58F6,  # hugetlbfs
        0x0187,  # autofs
        0x4249_4E4D,  # binfmt_misc
        0xDE5E_81E4,  # efivarfs
        0xF97C_FF8C,  # selinuxfs
        0x4341_5D53,  # smackfs
        0x6E73_6673,  # nsfs
        0x0765_5821,  # resctrl
        0x6C6F_6F70,  # binder
    }
)
_TMPFS: Final = 0x0102_1994
_RAMFS: Final = 0x8584_58F6


def is_pseudo(fd: int) -> bool:
    """Whether what `fd` is lies on a filesystem without storage behind it, device nodes included."""
    magic = filesystem_type(fd)
    return magic in _MAGICS or (magic == _TMPFS and _is_devtmpfs(os.fstat(fd).st_dev))


def is_memory(fd: int) -> bool:
    """Whether what `fd` is lies in memory, so that reading it never waits for a disk."""
    return filesystem_type(fd) in (_TMPFS, _RAMFS)


def _is_devtmpfs(device: int) -> bool:
    """devtmpfs has the magic number of tmpfs; the mount table tells them apart."""
    wanted = f"{os.major(device)}:{os.minor(device)}".encode()
    with open("/proc/self/mountinfo", "rb") as mounts:
        for line in mounts:
            mount, _, source = line.partition(b" - ")
            if mount.split()[2] == wanted:
                return source.startswith(b"devtmpfs ")
    return False
