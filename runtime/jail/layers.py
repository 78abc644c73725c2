"""The layers of a jail, and how many of them a machine is to have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final


class Mode(StrEnum):
    """What `--jail` says."""

    AUTO = "auto"
    """Every layer that this host has."""
    STRICT = "strict"
    """All layers, or no machine."""
    OFF = "off"
    """None: the kernel process may do whatever its caller may."""


DEFAULT: Final = Mode.AUTO


class Layer(StrEnum):
    """One wall, by the name that the launcher's report, `uml doctor` and `uml ps` know it by."""

    LIMITS = "limits"
    CGROUP = "cgroup"
    NAMESPACES = "namespaces"
    ROOT = "root"
    PRIVILEGES = "privileges"
    USER = "user"
    LANDLOCK = "landlock"
    SECCOMP = "seccomp"


PURPOSE: Final = {
    Layer.LIMITS: "bounds on memory, files and processes",
    Layer.CGROUP: "a bound on the memory and processes of a whole machine",
    Layer.NAMESPACES: "processes, network and IPC of its own",
    Layer.ROOT: "no file of the host but what it was given",
    Layer.PRIVILEGES: "no capabilities, and no way to get any",
    Layer.USER: "a user that owns nothing",
    Layer.LANDLOCK: "files, TCP, abstract sockets and signals, once more",
    Layer.SECCOMP: "only the system calls that a kernel needs",
}


OPTIONAL: Final = frozenset({Layer.CGROUP})
"""Those that a strict jail may lack: most logins have no control groups of their own."""


@dataclass(frozen=True, slots=True)
class Layers:
    """What one machine's jail has come to be."""

    mode: Mode
    present: tuple[Layer, ...] = ()
    absent: Mapping[Layer, str] = field(default_factory=dict)
    """What there is not, and why."""
    refused: tuple[str, ...] = ()
    """The system calls that the kernel process was refused so far: none of a kernel that is known."""

    @property
    def lacking(self) -> dict[Layer, str]:
        """What a strict jail cannot be without, and why it is not there."""
        return {layer: why for layer, why in self.absent.items() if layer not in OPTIONAL}

    def with_refused(self, name: str) -> Layers:
        """And `name` was refused."""
        return self if name in self.refused else replace(self, refused=(*self.refused, name))

    def describe(self) -> str:
        """In one line, for a person."""
        if self.mode is Mode.OFF:
            return "off"
        lacking = "".join(f"; without {layer} ({why})" for layer, why in self.absent.items())
        refused = f"; refused {', '.join(self.refused)}" if self.refused else ""
        return f"{self.mode}: {', '.join(self.present)}{lacking}{refused}"

    def message(self) -> dict[str, object]:
        """For a program to read."""
        return {
            "mode": str(self.mode),
            "layers": [*map(str, self.present)],
            "missing": dict(self.absent),
            "refused": [*self.refused],
        }


OPEN: Final = Layers(Mode.OFF)
"""No jail."""
