"""The kernels that there are, for people and for programs."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.kernels import store
from runtime.kernels.features import abilities, features
from runtime.kernels.kernel import Kernel, find_kernel, kernel_name, system_kernel
from umlfs.errors import UmlError


@dataclass(frozen=True, slots=True)
class Row:
    """One kernel."""

    name: str
    version: str
    origin: str
    size: int
    default: bool
    file: str


def rows() -> list[Row]:
    """All kernels, the newest first, the distribution's own last."""
    try:
        default = find_kernel().path
    except UmlError:
        default = None
    found = [
        Row(each.name, each.about.version, each.about.origin, each.about.size, each.kernel == default, str(each.kernel))
        for each in store.entries()
    ]
    try:
        own = system_kernel()
    except UmlError:
        return found
    size = own.path.stat().st_size
    return [*found, Row(store.SYSTEM, own.version, "this host", size, own.path == default, str(own.path))]


def table(found: list[Row]) -> str:
    """The rows for a person."""
    if not found:
        return "no kernels: 'uml kernel install' fetches one\n"
    lines = [("", "NAME", "VERSION", "FROM", "SIZE")]
    lines += [
        ("*" if row.default else "", row.name, row.version, row.origin, f"{row.size / 1e6:.0f} MB") for row in found
    ]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() + "\n" for line in lines
    )


def lacks(entry: store.StoredKernel) -> list[str]:
    """What the distribution's own kernel can do and this one cannot, in a line for a person."""
    try:
        own, this = system_kernel(), find_kernel(str(entry.kernel))
    except UmlError:
        return []
    before, now = abilities(own), abilities(this)
    gone = [what for what, there in before.items() if there != "no" and now[what] == "no"]
    if not gone:
        return []
    return [f"{entry.name} lacks what {own.version} has: {', '.join(gone)} (--kernel {store.SYSTEM} takes that one)"]


def describe(kernel: Kernel) -> dict[str, str | list[str]]:
    """What is known of a kernel."""
    entry = store.entry(kernel.path.parent.name) if kernel.path.parent.parent == store.directory() else None
    found: dict[str, str | list[str]] = {
        "name": kernel_name(kernel),
        "version": kernel.version,
        "file": str(kernel.path),
        "modules": str(kernel.modules or "none"),
    }
    if entry is not None:
        found |= {"from": entry.about.origin, "package": entry.about.package, "flavours": entry.about.flavours}
        found |= {"size": f"{entry.about.size / 1e6:.0f} MB"}
        found |= {"checksums": [f"{name} {value}" for name, value in entry.about.checksums.items()]}
    able = abilities(kernel)
    found["words"] = sorted(features(kernel).words)
    for answer, title in (("yes", "has"), ("module", "modules for"), ("no", "lacks")):
        found[title] = [what for what, there in able.items() if there == answer]
    return {key: value for key, value in found.items() if value}
