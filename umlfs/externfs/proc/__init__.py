"""`proc:` the processes of this host. See docs/externfs.md."""
