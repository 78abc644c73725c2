"""The channels: what a line can be on the host, one module each."""
