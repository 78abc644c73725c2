"""Terminals, and streams of bytes."""
