"""What POSIX and Linux promise of a filesystem: run on a native one as the reference, and through mounts."""

import pytest

_MODULES = ("names", "permissions", "files", "attributes", "check")

pytest.register_assert_rewrite(*(f"{__name__}.{module}" for module in _MODULES))
