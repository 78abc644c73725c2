"""`all:` several sources side by side, and the same done to all of them. See docs/externfs.md."""
