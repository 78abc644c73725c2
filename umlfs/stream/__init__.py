"""A `Filesystem` at the other end of a stream of bytes: FUSE requests out, FUSE answers in."""
