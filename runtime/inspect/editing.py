"""Editing a file inside of a source with a program of this host."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from pathlib import Path
from typing import Final

import trio

from runtime.inspect.changing import Tree, writable
from runtime.inspect.contents import close_file, open_file, read
from runtime.inspect.copy import Copier, remove
from runtime.inspect.location import Location
from runtime.inspect.paths import Node, child, resolve
from umlfs.errors import UmlError
from umlfs.filesystem import SetAttr

LARGEST: Final = 64 << 20
"""Bytes of a file that can be edited."""
BESIDE: Final = b".uml-edit"
"""What the new file is called until it takes the old one's place."""


async def edit(place: Location, editor: str) -> None:
    """Have `editor`, a command, change the file. UmlError, OSError; then the file is as it was."""
    async with writable(place) as tree:
        node = await resolve(tree.filesystem, place.inside)
        if not node.is_file:
            raise UmlError(f"{place}: no regular file", "'uml ls' shows what there is")
        if node.attr.size > LARGEST:
            raise UmlError(f"{place}: larger than {LARGEST >> 20} MiB", "'uml cp' copies it out and in")
        before = await read(tree.filesystem, node, LARGEST)
        after = await trio.to_thread.run_sync(_edited, editor, node.name, before)
        if after != before:
            await _replace(tree, await _without_links(tree, place.inside), node, after)


def _edited(editor: str, name: bytes, content: bytes) -> bytes:
    with tempfile.TemporaryDirectory(prefix="uml-edit-") as directory:
        path = Path(directory, os.fsdecode(name) or "file")
        path.write_bytes(content)
        try:
            status = subprocess.run([*shlex.split(editor), str(path)], check=False).returncode
        except OSError as error:
            raise UmlError(f"{editor}: {os.strerror(error.errno or 0)}", "name an editor with EDITOR=") from None
        if status:
            raise UmlError(f"{editor}: exit status {status}; nothing was changed")
        return path.read_bytes()


async def _without_links(tree: Tree, path: bytes) -> bytes:
    """The path of the file itself, where `path` is a symlink to it."""
    for _ in range(40):
        node = await resolve(tree.filesystem, path, follow=False)
        if not node.is_link:
            return path
        target = await tree.filesystem.readlink(node.ino)
        path = target if target.startswith(b"/") else path.rpartition(b"/")[0] + b"/" + target
    return path


async def _replace(tree: Tree, path: bytes, node: Node, content: bytes) -> None:
    """Make a file like `node` but for its contents, and let it take the place of what is at `path`."""
    parent, name = await tree.parent_of(path)
    beside = name[:200] + BESIDE
    copier = Copier(tree.filesystem, tree.filesystem, replace=True)
    await copier.copy(node, parent.ino, beside)
    try:
        made = await child(tree.filesystem, parent, beside)
        await _write(tree, made, content)
        await tree.filesystem.setattr(made.ino, SetAttr(mode=node.attr.mode & 0o7777))
        await tree.filesystem.rename(parent.ino, beside, parent.ino, name)
    except BaseException:
        with trio.CancelScope(shield=True):
            await remove(tree.filesystem, parent.ino, beside)
        raise


async def _write(tree: Tree, made: Node, content: bytes) -> None:
    await tree.filesystem.setattr(made.ino, SetAttr(size=0))
    handle = await open_file(tree.filesystem, made, os.O_RDWR)
    try:
        done = await tree.filesystem.write_from(made.ino, handle, 0, [memoryview(bytearray(content))]) if content else 0
        if done < len(content):
            raise UmlError(f"{os.fsdecode(made.path)}: no space left on device", "make room there")
        await tree.filesystem.fsync(made.ino, handle)
    finally:
        await close_file(tree.filesystem, made, handle)
