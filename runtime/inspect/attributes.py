"""All that is known of one file, and of one filesystem."""

from __future__ import annotations

import os

from runtime.inspect.fields import fields
from runtime.inspect.location import Location
from runtime.inspect.paths import resolve
from runtime.inspect.tree import open_tree


async def attributes(place: Location) -> dict[str, object]:
    """The attributes of what is at `place`, extended ones as text or `0x` and hexadecimal digits. OSError, UmlError."""
    async with open_tree(place) as tree:
        filesystem = tree.filesystem
        with tree.naming():
            node = await resolve(filesystem, place.inside, follow=False)
        found = await fields(filesystem, node)
        try:
            names = [] if node.is_link else sorted(await filesystem.listxattr(node.ino))
            values = {os.fsdecode(name): _text(await filesystem.getxattr(node.ino, name)) for name in names}
        except OSError:
            values = {}
        if values:
            found["attribute"] = values
        return found


def _text(value: bytes) -> str:
    try:
        text = value.removesuffix(b"\0").decode()
    except UnicodeDecodeError:
        return "0x" + value.hex()
    return text if text.isprintable() else "0x" + value.hex()


async def space(place: Location) -> dict[str, object]:
    """How full the filesystem of `place` is, in bytes and files. OSError, UmlError."""
    async with open_tree(place) as tree:
        state = await tree.filesystem.statfs()
        unit = state.block_size
        used = state.blocks - state.blocks_free
        usable = used + state.blocks_available
        return {
            "source": str(place),
            "filesystem": tree.kind,
            "size": state.blocks * unit,
            "used": used * unit,
            "available": state.blocks_available * unit,
            "percent": -(-100 * used // usable) if usable > 0 else 0,
            "files": state.files,
            "files_free": state.files_free,
        }
