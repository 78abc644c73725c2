"""Facts of the host, and what is kept on it."""
