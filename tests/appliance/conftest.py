"""Those who call `uml`, as in the tests of guests."""

from tests.guest.conftest import caller, me

__all__ = ["caller", "me"]
