"""The kernel's own doors to the host: drivers that open files of the host by a name that the guest gives them.

They are kept from starting by `initcall_blacklist=`, for built-in drivers and for modules alike. The names are those of
`module_init` in fs/hostfs/hostfs_kern.c, arch/um/drivers/mmapper_kern.c (gone in 7.2) and hostaudio_kern.c; the tests
look for the devices in every kernel that they boot.
"""

from __future__ import annotations

from typing import Final

HOSTFS: Final = "init_hostfs"
"""`mount -t hostfs`"""
IOMEM: Final = "mmapper_init"
"""/dev/mmapper, the files of `iomem=`"""
SOUND: Final = "hostaudio_init_module"
"""/dev/dsp and /dev/mixer of the host"""


def shut_doors(*, hostfs: bool, iomem: bool) -> str:
    """The word for the kernel's command line that shuts all doors but those that are asked for."""
    shut = [name for name, asked in ((HOSTFS, hostfs), (IOMEM, iomem), (SOUND, False)) if not asked]
    return f"initcall_blacklist={','.join(shut)}"
