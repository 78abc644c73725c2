"""The layers of a kernel process's jail on this host: each as a check, with what mends it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

from runtime.doctor.check import Check, sudo
from runtime.guest.initramfs import find_busybox
from runtime.jail import landlock
from runtime.jail.confined import run_confined
from runtime.jail.layers import PURPOSE, Layer, Layers
from umlfs.errors import UmlError

SECONDS: Final = 10.0
SYSTEMD: Final = Path("/run/systemd/system")
"""There where systemd runs, which delegates groups."""
NAMESPACE_SETTINGS: Final = {
    Path("/proc/sys/kernel/unprivileged_userns_clone"): "1",
    Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"): "0",
}
"""What forbids user namespaces to ordinary users, and the value that allows them."""


def jail_checks() -> list[Check]:
    """A check for each layer: a small program is put into a jail, and what it has become is told."""
    try:
        layers = run_confined([str(find_busybox()), "true"], SECONDS, group=True).layers
    except (UmlError, subprocess.TimeoutExpired) as error:
        why = error.what if isinstance(error, UmlError) else "no answer"
        return [Check("jail", False, False, why, "keeping guests from this host", None)]
    return [_check(layer, layers) for layer in Layer]


def _check(layer: Layer, layers: Layers) -> Check:
    name, purpose = f"jail: {layer}", f"guests: {PURPOSE[layer]}"
    if layer in layers.absent:
        return Check(name, False, False, layers.absent[layer], purpose, _mend(layer))
    return Check(name, True, False, _landlock() if layer is Layer.LANDLOCK else "there", purpose)


def _landlock() -> str:
    found = landlock.features()
    lacks = f", without {', '.join(found.lacks)}" if found.lacks else ""
    return f"version {found.abi}{lacks}"


def _mend(layer: Layer) -> str | None:
    if layer is Layer.CGROUP:
        return "systemd-run --user --scope uml …" if SYSTEMD.is_dir() else None
    if layer not in (Layer.NAMESPACES, Layer.ROOT):
        return None
    for path, value in NAMESPACE_SETTINGS.items():
        if path.exists() and path.read_text().strip() != value:
            return sudo(f"sysctl {'.'.join(path.parts[3:])}={value}")
    return None
