"""Names beside others, for what is about to take their place."""

from __future__ import annotations

import secrets
from typing import Final

import trio

from runtime.inspect.copy import remove
from runtime.inspect.paths import Node
from umlfs.filesystem import Filesystem

_NAME_MAX: Final = 200
"""Bytes of the name that are in the one beside: with its end it stays within the limit of every filesystem."""


def beside(name: bytes) -> bytes:
    """A hidden name, made of `name`, that nothing has: what is made under it must not replace anything."""
    start = name[:_NAME_MAX].decode(errors="ignore")
    return f".{start}.uml-{secrets.token_hex(8)}".encode()


async def take_place(filesystem: Filesystem, parent: Node, draft: bytes, name: bytes) -> None:
    """Let what is called `draft` take the place of what is called `name`, at once. OSError; then the draft is gone."""
    try:
        await filesystem.rename(parent.ino, draft, parent.ino, name)
    finally:  # of two names of one file a rename leaves both
        with trio.CancelScope(shield=True):
            await remove(filesystem, parent.ino, draft)
