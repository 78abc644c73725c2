"""What kind of filesystem something is on.

Some are made up by the kernel. The host's own mounts of them are no business of a guest: it has its own. The numbers
are those of include/uapi/linux/magic.h."""

from __future__ import annotations

import os
from typing import Final

from umlfs.host.syscalls import filesystem_type

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
_EXT4: Final = 0xEF53
_XFS: Final = 0x5846_5342
_BTRFS: Final = 0x9123_683E
_F2FS: Final = 0xF2F5_2010
_OVERLAY: Final = 0x794C_7630

ELSEWHERE: Final = frozenset(
    {
        0x6969,  # nfs
        0xFF53_4D42,  # cifs
        0xFE53_4D42,  # smb2
        0x517B,  # smb
        0x6573_5546,  # fuse
        0x0102_1997,  # 9p
        0x00C3_6400,  # ceph
        0x5346_414F,  # afs
        0x6B41_4653,  # kafs
        0x0116_1970,  # gfs2
        0x7461_636F,  # ocfs2
        0x0BD0_0BD0,  # lustre
        0x00C0_FFEE,  # hostfs
    }
)
"""Filesystems that may change without this kernel knowing."""
FINE_TIMES: Final = frozenset({_EXT4, _XFS, _BTRFS, _TMPFS})
"""From Linux 6.13 on, a change after somebody has looked always gets a time of its own on these."""
_READ_BY_ASKER: Final = frozenset({_EXT4, _XFS, _BTRFS, _F2FS, _OVERLAY})


def is_pseudo(fd: int) -> bool:
    """Whether what `fd` is lies on a filesystem without storage behind it, device nodes included."""
    magic = filesystem_type(fd)
    return magic in _MAGICS or (magic == _TMPFS and _is_devtmpfs(os.fstat(fd).st_dev))


def is_memory(fd: int) -> bool:
    """Whether what `fd` is lies in memory, so that reading it never waits for a disk."""
    return filesystem_type(fd) in (_TMPFS, _RAMFS)


def is_read_by_asker(fd: int) -> bool:
    """Whether a thread that lists a directory there reads the disk itself, so that it is counted as its own reading.
    (Of an overlay that holds for what it lies over, if not on a network.)"""
    return filesystem_type(fd) in _READ_BY_ASKER


def _is_devtmpfs(device: int) -> bool:
    """devtmpfs has the magic number of tmpfs; the mount table tells them apart."""
    wanted = f"{os.major(device)}:{os.minor(device)}".encode()
    with open("/proc/self/mountinfo", "rb") as mounts:
        for line in mounts:
            mount, _, source = line.partition(b" - ")
            if mount.split()[2] == wanted:
                return source.startswith(b"devtmpfs ")
    return False
