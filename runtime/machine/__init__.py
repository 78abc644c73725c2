"""One kernel process with its devices, its agent and what it mounts."""
