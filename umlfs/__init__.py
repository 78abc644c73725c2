"""The storage core: the Filesystem and BlockDevice contracts, their servers, and what stores blocks."""
