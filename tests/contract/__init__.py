"""Checks of contracts: written once, run against every provider and through every server."""

import pytest

_MODULES = ("filesystem", "subject", "fs_names", "fs_files", "fs_space", "fs_attributes", "fs_directories", "posix")

pytest.register_assert_rewrite(*(f"{__name__}.{module}" for module in _MODULES))
