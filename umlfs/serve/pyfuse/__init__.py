"""Filesystems mounted on the host itself, through pyfuse3."""

from umlfs.serve.pyfuse.adapter import Adapter
from umlfs.serve.pyfuse.mount import Mounted, mount

__all__ = ["Adapter", "Mounted", "mount"]
