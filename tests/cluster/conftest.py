"""Users with clusters."""

from tests.machines.conftest import me, ordinary

__all__ = ["me", "ordinary"]
