"""FUSE requests to a `Filesystem`, whatever carries them."""
