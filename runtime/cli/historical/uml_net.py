"""uml_net: refused. It was a program that changed the host's network with root's rights for whoever asked."""

from __future__ import annotations

import sys
from typing import NoReturn

REFUSAL = """\
uml_net: umlfs has no set-uid helper: what it did needs no root any more
  a network to the world:       uml boot --net user
  a network between machines:   uml net create NAME, uml boot --net NAME
  a tap device of one's own:    sudo ip tuntap add tap0 mode tap user USER, then vec0:transport=tap,ifname=tap0,gro=1
"""


def main() -> NoReturn:
    """The entry point of `uml_net`."""
    sys.stderr.write(REFUSAL)
    sys.exit(1)
