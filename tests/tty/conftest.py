"""A cache directory and an environment of each test's own."""

from tests.isolated import own_environment

__all__ = ["own_environment"]
