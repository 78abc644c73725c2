"""The storage core: the Filesystem and BlockDevice contracts, their servers, and what stores blocks."""

import os
import sys

_packages = os.path.join(os.path.dirname(__file__), "_packages")
if os.path.isdir(_packages) and _packages not in sys.path:  # installed: see umlfs.entry
    sys.path.append(_packages)
