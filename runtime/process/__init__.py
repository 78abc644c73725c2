"""Processes of the host: keepers, processors, memory, background."""
