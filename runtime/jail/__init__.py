"""What keeps a kernel process from the host: see docs/security.md."""
