"""Filesystems over filesystems, and small ones that are made up."""
