"""Guests that stand for the next command."""
