"""`objects:` Python objects as a tree. See docs/externfs.md."""
