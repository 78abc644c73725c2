"""What is known of an image, in lines for a person."""

from __future__ import annotations

from collections.abc import Iterator

from runtime.inspect.fields import human
from runtime.inspect.info import ImageInfo, PartInfo
from runtime.inspect.system import System


def summary(info: ImageInfo) -> list[str]:
    """The lines about an image."""
    taken = "" if info.allocated is None else f", {human(info.allocated)} on this host"
    lines = [f"image       {info.path}", f"format      {info.format}", f"size        {human(info.size)}{taken}"]
    lines += [f"{'layers' if index == 0 else 'over':<11} {layer}" for index, layer in enumerate(info.layers)][
        : len(info.layers) if len(info.layers) > 1 else 0
    ]
    lines.append(f"partitions  {sum(part.volume is None for part in info.parts) if info.table else 'none'}")
    for part in info.parts:
        lines += ["", *_part(part)]
    return lines


def _part(part: PartInfo) -> Iterator[str]:
    if part.volume is not None:
        yield f"volume {part.volume}"
    else:
        yield f"partition {part.number}" if part.number is not None else "the whole"
    yield f"  size        {human(part.size)}" + (f" at {human(part.offset)}" if part.offset else "")
    yield f"  filesystem  {part.filesystem or 'none known'}"
    for name in ("label", "uuid"):
        value = getattr(part, name)
        if value is not None:
            yield f"  {name:<11} {value}"
    if part.capacity is not None and part.used is not None:
        yield f"  used        {human(part.used)} of {human(part.capacity)}"
    if part.trouble is not None:
        yield f"  trouble     {part.trouble}"
    if part.system is not None:
        yield from _system(part.system)


def _system(system: System) -> Iterator[str]:
    if system.distribution:
        yield f"  system      {system.distribution}" + (f" in {system.place}" if system.place != "/" else "")
    if system.hostname:
        yield f"  hostname    {system.hostname}"
    for line in system.fstab:
        yield f"  fstab       {' '.join(line)}"
