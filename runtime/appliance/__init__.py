"""The appliance: a guest without a userland that reads and writes the filesystems of disk images for the host."""
