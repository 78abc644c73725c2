"""Sources served on sockets."""
