"""A directory of the host as a Filesystem."""

from hostfs.export import Cache
from hostfs.filesystem import HostFilesystem

__all__ = ["Cache", "HostFilesystem"]
