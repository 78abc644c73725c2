"""Consoles and serial lines: `/dev/tty0`… and `/dev/ttyS0`… of a guest, and what they are on the host."""
