"""Filesystems mounted on the host itself, with the help of pyfuse3."""

from umlfs.mount.mount import Mounted, mount

__all__ = ["Mounted", "mount"]
