"""The management console of a machine: its protocol, clients of it, its public socket, and what it tells of itself."""
