"""A directory of the host as a Filesystem."""

from hostfs.filesystem import HostFilesystem
from hostfs.settings import Cache

__all__ = ["Cache", "HostFilesystem"]
