"""Editing a file inside of a source with a program of this host."""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Final

import trio

from runtime.inspect.beside import beside, take_place
from runtime.inspect.changing import WritableTree, writable
from runtime.inspect.contents import close_file, open_file, read
from runtime.inspect.copy import Copier, remove
from runtime.inspect.location import Location
from runtime.inspect.paths import Node, child, failure, resolve
from umlfs.errors import UmlError, described
from umlfs.filesystem import SetAttr

LARGEST: Final = 64 << 20
"""Bytes of a file that can be edited."""
_NO_COPY: Final = frozenset({errno.EACCES, errno.EPERM})
"""What a directory answers that takes no new file."""


async def edit(place: Location, editor: str) -> None:
    """Have `editor`, a command, change the file. UmlError, OSError; then the file is as it was."""
    with _Draft() as draft:
        async with writable(place) as tree:
            node = await resolve(tree.filesystem, place.inside)
            if not node.is_file:
                raise UmlError(f"{place}: no regular file", "'uml ls' shows what there is")
            if node.attr.size > LARGEST:
                raise UmlError(f"{place}: larger than {LARGEST >> 20} MiB", "'uml cp' copies it out and in")
            before = await read(tree.filesystem, node, LARGEST)
            after = await trio.to_thread.run_sync(draft.edited, editor, node.name, before)
            if after == before:
                return
            draft.counts = True
            if await read(tree.filesystem, await resolve(tree.filesystem, place.inside), LARGEST) != before:
                raise UmlError(f"{place}: changed by another meanwhile")
            await _replace(tree, await _without_links(tree, place.inside), node, before, after)


class _Draft:
    """The file of this host that the editor gets. If what was written in it does not reach its place, it stays."""

    def __init__(self) -> None:
        self.counts = False
        """There is text in it that must not be lost."""
        self._path: Path | None = None

    def __enter__(self) -> _Draft:
        return self

    def __exit__(self, _: type | None, error: BaseException | None, __: TracebackType | None) -> None:
        if self._path is None:
            return
        if self.counts and isinstance(error, UmlError | OSError):
            what = error.what if isinstance(error, UmlError) else described(error)
            raise UmlError(what, f"what you wrote is in {self._path}") from None
        shutil.rmtree(self._path.parent, ignore_errors=True)

    def edited(self, editor: str, name: bytes, content: bytes) -> bytes:
        """`content` after the editor had it. UmlError if that fails, OSError."""
        directory = tempfile.mkdtemp(prefix="uml-edit-")
        self._path = path = Path(directory, os.fsdecode(name) or "file")
        path.write_bytes(content)
        try:
            status = subprocess.run([*shlex.split(editor), str(path)], check=False).returncode
        except OSError as error:
            raise UmlError(f"{editor}: {os.strerror(error.errno or 0)}", "name an editor with EDITOR=") from None
        if status:
            raise UmlError(f"{editor}: exit status {status}; nothing was changed")
        return path.read_bytes()


async def _without_links(tree: WritableTree, path: bytes) -> bytes:
    """The path of the file itself, where `path` is a symlink to it."""
    for _ in range(40):
        node = await resolve(tree.filesystem, path, follow=False)
        if not node.is_link:
            return path
        target = await tree.filesystem.readlink(node.ino)
        path = target if target.startswith(b"/") else path.rpartition(b"/")[0] + b"/" + target
    return path


async def _replace(tree: WritableTree, path: bytes, node: Node, before: bytes, content: bytes) -> None:
    """Give the file new contents, all at once: by another that takes its place. One that has other names, or something
    that no other can have, is written where it is."""
    if node.attr.nlink > 1 or not await _by_another(tree, path, node, content):
        await _in_place(tree, node, before, content)


async def _by_another(tree: WritableTree, path: bytes, node: Node, content: bytes) -> bool:
    """Make a file like `node` but for its contents, and let it take its place; False if there can be none. OSError."""
    parent, name = await tree.parent_of(path)
    draft = beside(name)
    copier = Copier(tree.filesystem, tree.filesystem)
    try:
        await copier.copy(node, parent.ino, draft)
    except OSError as error:
        if error.errno in _NO_COPY:
            return False
        raise failure(error.errno or errno.EIO, path) from None
    try:
        report = copier.report
        if report.owners_lost or report.attributes_lost or report.skipped:
            await remove(tree.filesystem, parent.ino, draft)
            return False
        made = await child(tree.filesystem, parent, draft)
        await _write(tree, made, content, node.path)
        await tree.filesystem.setattr(made.ino, SetAttr(mode=node.attr.mode & 0o7777))
    except BaseException:
        with trio.CancelScope(shield=True):
            await remove(tree.filesystem, parent.ino, draft)
        raise
    try:
        await take_place(tree.filesystem, parent, draft, name)
    except OSError as error:
        raise failure(error.errno or errno.EIO, path) from None
    return True


async def _in_place(tree: WritableTree, node: Node, before: bytes, content: bytes) -> None:
    """Write `content` into the file; `before`, what it has, if there is no room. OSError."""
    try:
        await _write(tree, node, content, node.path)
    except BaseException:
        with trio.CancelScope(shield=True):
            await _write(tree, node, before, node.path)
        raise
    await tree.filesystem.setattr(node.ino, SetAttr(mode=node.attr.mode & 0o7777))


async def _write(tree: WritableTree, made: Node, content: bytes, path: bytes) -> None:
    """Durable on return. OSError that names `path`."""
    try:
        handle = await open_file(tree.filesystem, made, os.O_RDWR)
        try:
            data = [memoryview(bytearray(content))]
            done = await tree.filesystem.write_from(made.ino, handle, 0, data) if content else 0
            if done < len(content):
                raise failure(errno.ENOSPC, path)
            await tree.filesystem.setattr(made.ino, SetAttr(size=len(content)), handle)
            await tree.filesystem.fsync(made.ino, handle)
        finally:
            await close_file(tree.filesystem, made, handle)
    except OSError as error:
        raise failure(error.errno or errno.EIO, path) from None
