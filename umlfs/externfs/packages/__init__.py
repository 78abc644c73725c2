"""`packages:` the package database of a Debian system as text. See docs/externfs.md."""
