"""What of a jail this host cannot give, as far as that is known before trying."""

from __future__ import annotations

from runtime.jail import landlock, seccomp
from runtime.jail.layers import Layer


def missing() -> dict[Layer, str]:
    """The layers that there are none of, and why."""
    found: dict[Layer, str] = {}
    if why := landlock.why_absent():
        found[Layer.LANDLOCK] = why
    if not seccomp.is_known():
        found[Layer.SECCOMP] = f"its table is for {seccomp.MACHINE} alone"
    return found
