"""Filesystems mounted on the host itself, through pyfuse3."""

from umlfs.mount.adapter import Adapter
from umlfs.mount.mount import Mounted, mount

__all__ = ["Adapter", "Mounted", "mount"]
