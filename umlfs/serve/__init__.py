"""Servers: one module per consumer, with the sans-IO codec of its protocol beside it."""
