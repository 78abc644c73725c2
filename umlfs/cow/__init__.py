"""COW files of User-mode Linux: a device that holds what differs from a backing file."""
