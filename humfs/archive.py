"""Archives into a humfs and out of it: which kind one is, and the state that an import leaves."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final, cast

from humfs import superblock as superblocks
from humfs.compression import LOOK, Forward, beginning, compression
from humfs.export import Exporter
from humfs.filesystem import HumFilesystem
from humfs.image import Description, add_image, check_layer, describe, find_image, is_image, may_begin_image
from humfs.imagefiles import Files, Packed
from humfs.importer import Importer
from humfs.losses import Losses
from humfs.superblock import SIZE_MAX
from humfs.tarball import add_tar, plain
from humfs.tarheader import BLOCK, DamagedError
from humfs.tarreader import Reader
from humfs.volume import Progress, Volume, create, no_progress
from umlfs.errors import UmlError, UsageError
from umlfs.host.newfile import is_special, new_file

STANDARD: Final = "-"
"""The name that means standard input, or output."""
SPARE: Final = 1 << 30
"""What a new humfs may grow by when nobody says otherwise: it takes nothing."""
_MIB: Final = 1 << 20
_BUFFER: Final = 1 << 20
_LOOK: Final = 32 * BLOCK
"""How far to look for the first name."""

Warn = Callable[[str], None]


def no_warning(line: str) -> None:
    """Say nothing."""


async def import_archive(
    root: Path,
    archive: str,
    *,
    tag: str | None = None,
    losses: Losses | None = None,
    warn: Warn = no_warning,
    progress: Progress = no_progress,
    is_new: bool = False,
) -> int:
    """Put an archive into the humfs `root`, over what it has; returns the number of members.

    An archive is a tar file (compressed or not), `-` for one on standard input, or an image: an OCI layout, packed
    or not, or what `docker save` writes; of several images in it the one called `tag`. What cannot be kept is added to
    `losses`, else told in one line for each kind. Broken off, what was imported stays, and the next open tells of it.
    As with tar, the host has what was imported, but not yet on its disk. A humfs that `is_new` was just made and counts
    only once it is complete: that is faster. UmlError for what is no archive, is damaged, or does not fit.
    """
    async with _opened(root, progress) as filesystem:
        with contextlib.ExitStack() as stack:
            image, stream = _open(archive, stack)
            try:
                work = partial(_fill, image=image, stream=stream, tag=tag, progress=progress)
                return await _put_in(filesystem, work, losses, warn, remark=warn, is_new=is_new)
            except DamagedError as error:
                raise UmlError(f"{_shown(archive, 'input')}: {error.what}", error.way_out) from error


async def fill_new(
    root: Path,
    stream: BinaryIO,
    losses: Losses,
    *,
    size: int | None = None,
    warn: Warn = no_warning,
    progress: Progress = no_progress,
) -> int:
    """Make the humfs `root` of a tar archive, compressed or not; returns the number of members. It has room for `size`
    bytes, by default for `SPARE` more than it has. What is left of one that is broken off is of no use."""
    create(root, size or SIZE_MAX, durable=False)
    async with _opened(root, progress) as filesystem:
        work = partial(_fill, image=None, stream=stream, tag=None, progress=progress)
        count = await _put_in(filesystem, work, losses, warn, remark=no_warning, is_new=True)
        volume = filesystem.volume
        if size is None:
            volume.superblock.total = -(-(volume.used * 5 // 4 + SPARE) // _MIB) * _MIB
            superblocks.write(root, volume.superblock, durable=False)
        return count


@contextlib.asynccontextmanager
async def _opened(root: Path, progress: Progress) -> AsyncIterator[HumFilesystem]:
    filesystem = HumFilesystem(Volume(root, progress=progress))
    try:
        try:
            yield filesystem
        except BaseException:
            with contextlib.suppress(UmlError):  # what failed first says why
                await filesystem.close(durable=False)
            raise
        await filesystem.close(durable=False)
    except OSError as error:
        raise UmlError(f"{root}: {error.strerror}", "mend that on the host, then import again") from error


Work = Callable[[Importer], Awaitable[int]]


async def _fill(importer: Importer, image: Files | None, stream: BinaryIO, tag: str | None, progress: Progress) -> int:
    if image is not None:
        return await add_image(importer, image, progress, tag)
    return await add_tar(importer, stream, progress)


async def _put_in(
    filesystem: HumFilesystem, work: Work, losses: Losses | None, warn: Warn, *, remark: Warn, is_new: bool
) -> int:
    """Import, noting that it is under way for as long as it is, if anything came of it. `remark` is told what stays of
    one that is broken off."""
    store = filesystem.store
    broken_off_before = store.meta["importing"]
    importer = Importer(filesystem, warn, Losses() if losses is None else losses, is_new=is_new)
    store.set_meta(importing=1)
    store.commit()
    try:
        count = await work(importer)
    except BaseException:
        if importer.members:
            remark(f"broken off after {importer.members} files, which stay; import again to go on")
        else:
            store.set_meta(importing=broken_off_before)
        raise
    importer.finish()
    store.set_meta(importing=0)
    if losses is None:
        for line in importer.losses.lines():
            warn(line)
    return count


def _shown(archive: str, stream: str) -> str:
    return f"standard {stream}" if archive == STANDARD else archive


def _open(archive: str, stack: contextlib.ExitStack) -> tuple[Files | None, BinaryIO]:
    """The image, or else the stream to read as tar."""
    if archive == STANDARD:
        return look(_standard_input(), stack)
    path = Path(archive)
    if path.is_dir():
        image = find_image(path)
        if image is None:
            raise UsageError(f"{archive}: a directory, but no OCI image layout", "name a tar file or a layout")
        return image, io.BytesIO()
    try:
        return look(stack.enter_context(open(path, "rb")), stack)
    except OSError as error:
        raise UmlError(f"{archive}: {error.strerror}", None) from None


def _standard_input() -> BinaryIO:
    """Never closed: a thread may be waiting in it, for which Python would wait as it ends (`sys.stdin` too)."""
    return open(sys.stdin.fileno(), "rb", closefd=False)


def look(stream: BinaryIO, stack: contextlib.ExitStack) -> tuple[Files | None, BinaryIO]:
    """Tell an image from a tree: the image, if it is one, and the stream to be read. One that is compressed, or comes
    through a pipe, is put down in a temporary file if its first name is that of an image. DamagedError, OSError."""
    seekable = stream.seekable()
    ahead = Forward(stream)
    head = ahead.peek(LOOK)
    if seekable:
        stream.seek(0)
    again = stream if seekable else cast(BinaryIO, ahead)
    if not may_begin_image(_first_name(beginning(head, _LOOK))):
        return None, again
    if seekable and compression(head) is None:
        found = stream
    else:
        with plain(again) as contents:
            found = stack.enter_context(_spooled(contents))
    image = Packed(found)
    found.seek(0)
    return image if is_image(image) else None, found


def is_packed_image(file: BinaryIO) -> bool:
    """Whether the archive in a file, compressed or not, is a container image rather than a tree."""
    with contextlib.ExitStack() as stack:
        try:
            return look(file, stack)[0] is not None
        except DamagedError:
            return False


def describe_image(path: Path, tag: str | None) -> Description:
    """What the container image in a directory or a file, called `tag` or the only one there, is. UmlError."""
    with contextlib.ExitStack() as stack:
        image = _open(str(path), stack)[0]
        if image is None:
            raise UmlError(f"{path}: no container image", "name a layout, or what `docker save` writes")
        return describe(image, tag)


def check_image(path: Path, tag: str | None) -> None:
    """Read all layers of the container image in a directory or a file. UmlError for what is damaged or missing."""
    with contextlib.ExitStack() as stack:
        image = _open(str(path), stack)[0]
        if image is None:
            raise UmlError(f"{path}: no container image", "name a layout, or what `docker save` writes")
        for name, digest in describe(image, tag).layers:
            check_layer(image, name, digest)


def _first_name(data: bytes) -> str:
    """The first name in a tar archive that begins with `data`, but for the root's own; empty if it does not show."""
    with contextlib.suppress(UmlError):
        for member in Reader(cast(BinaryIO, io.BytesIO(data))):
            if member.path:
                return os.fsdecode(b"/".join(member.path))
    return ""


@contextlib.contextmanager
def _spooled(stream: BinaryIO) -> Iterator[BinaryIO]:
    """A file with all of the stream: an image is not read in the order that it is packed in."""
    with tempfile.TemporaryFile() as file:
        while data := stream.read(_BUFFER):
            file.write(data)
        file.seek(0)
        yield cast(BinaryIO, file)


def export_archive(root: Path, archive: str, *, warn: Warn = no_warning, progress: Progress = no_progress) -> int:
    """Write everything in the humfs `root` as a tar file, `-` for standard output; returns the number of members.

    What tar cannot hold (sockets) is left out, and `warn` told. The file is there, and durable, once it is complete;
    one of that name is replaced. UmlError if it cannot be written.
    """
    with contextlib.ExitStack() as stack:
        volume = Volume(root, progress=progress)
        stack.callback(volume.close)
        stack.enter_context(volume.damage_explained())
        try:
            with _output(archive) as output:
                exporter = Exporter(volume, output, progress=progress)
                count = exporter.run()
            for line in exporter.losses.lines():
                warn(line)
            return count
        except BrokenPipeError:
            raise
        except OSError as error:
            raise UmlError(f"{_shown(archive, 'output')}: {error.strerror}", None) from error


@contextlib.contextmanager
def _output(archive: str) -> Iterator[BinaryIO]:
    """Where to write: a file that is there once it is complete; a device or a pipe as it is."""
    if archive == STANDARD:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
    elif is_special(archive):
        with open(archive, "wb") as special:
            yield special
    else:
        with new_file(archive, replace=True) as fd, open(fd, "wb", closefd=False) as file:
            yield file
            file.flush()
