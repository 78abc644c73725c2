"""Block devices: files, slices of others, partitions, and what they hold."""
