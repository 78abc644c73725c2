"""Every image as a tar archive, in a stream: read by the guest's kernel where it holds a filesystem."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, Final, cast

import trio

from humfs.export import SOCKETS, export_tree
from humfs.losses import Losses
from runtime.host.needs import find_program
from runtime.host.scratch import scratch_directory, scratch_file
from runtime.images.disk_reader import read_disk
from runtime.images.formats import Format, Image
from runtime.images.parts import several
from runtime.images.sink import ImageReport
from umlfs.block import BlockDevice
from umlfs.blocks.raw import open_file
from umlfs.errors import UmlError
from umlfs.host.programs import Program
from umlfs.sources import parse

TAR: Final = (
    "--create",
    "--format=pax",
    "--pax-option=delete=atime,delete=ctime",
    "--xattrs",
    "--xattrs-include=*",
    "--sparse",
    "--numeric-owner",
    "--blocking-factor=512",
    "--sort=name",
    "--one-file-system",
)
"""How GNU tar writes all that we keep; access lists are attributes among others."""
_PIPE_SIZE: Final = 1 << 20
_SAID_MAX: Final = 1 << 20
_SHOWN: Final = 15
_FULL: Final = re.compile(re.escape(os.strerror(errno.ENOSPC)) + "|: Wrote only [0-9]+ of [0-9]+ bytes$")
"""The system's words for it, and GNU tar's."""
_SOCKET: Final = ": socket ignored"
_UNREAD: Final = ": this kernel reads no attributes of such a filesystem"
"""The packer's words (`runtime/appliance/packer.c`)."""
_CHANGED: Final = 1
"""GNU tar's exit status when files changed while it read them."""


@contextlib.asynccontextmanager
async def tar_stream(image: Image, near: Path, report: ImageReport) -> AsyncIterator[BinaryIO]:
    """The image's files as a tar archive, compressed only if it is such a file itself; to be read in a thread.

    `near` is a directory for what has to be put down in between. What cannot be read is an UmlError when the context
    ends: until then, what was read may be cut short.
    """
    if image.format is Format.TAR:
        with _opened(image.path) as file:
            yield file
    elif image.format is Format.DIRECTORY:
        async with _packed(_tar_words(image.path), image, report) as stream:
            yield stream
    elif image.format is Format.ARCHIVE:
        async with _packed(_bsdtar_words(image.path), image, report) as stream:
            yield stream
    elif image.format is Format.HUMFS:
        async with _piped(lambda fd: _export(image.path, fd, report)) as stream:
            yield stream
    elif image.format is Format.OCI:
        with scratch_directory(near) as scratch:
            await flatten(image, scratch / "flat", report)
            async with _piped(lambda fd: _export(scratch / "flat", fd, report)) as stream:
                yield stream
    else:
        async with (
            _readable(image, near) as readable,
            _piped(lambda fd: _read_in_guest(readable, fd, report)) as stream,
        ):
            yield stream


def _opened(path: Path) -> BinaryIO:
    try:
        return open(path, "rb")
    except OSError as error:
        raise UmlError(f"{path}: {error.strerror}", None) from error


@contextlib.asynccontextmanager
async def _piped(produce: Callable[[int], Awaitable[None]]) -> AsyncIterator[BinaryIO]:
    """What `produce` writes to the descriptor that it is given, as a stream."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    with contextlib.suppress(OSError):
        import fcntl

        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)

    trouble: list[UmlError] = []

    async def run_producer() -> None:
        try:
            await produce(writing)
        except UmlError as error:
            trouble.append(error)  # why the reader finds the archive cut short
        finally:
            os.close(writing)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_producer)
        with os.fdopen(reading, "rb") as stream:
            try:
                yield stream
                await trio.to_thread.run_sync(drain, stream)
            except UmlError as error:
                raise (trouble or [error])[0] from None
    if trouble:
        raise trouble[0]


def drain(stream: BinaryIO) -> None:
    """Read what follows the end of an archive: whoever writes that must not find the pipe broken."""
    while stream.read(1 << 16):
        pass


# Directories ----------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def _packed(command: list[str], image: Image, report: ImageReport) -> AsyncIterator[BinaryIO]:
    """What a program that packs an archive writes."""
    with scratch_errors() as errors, _packing(command, errors) as process:
        stream = cast(BinaryIO, process.stdout)
        try:
            yield stream
            await trio.to_thread.run_sync(drain, stream)
        except BaseException:
            process.terminate()
            raise
        finally:
            stream.close()
            status = process.wait()
        lines = _count_sockets(said(errors), report.losses)
        if status > (_CHANGED if image.format is Format.DIRECTORY else 0):
            raise failed(f"{image.name}: not all of it can be read", lines)
        for line in lines:
            report.warn(line.removeprefix("tar: "))


def _tar_words(path: Path) -> list[str]:
    return [find_program("tar"), *TAR, "--directory", str(path), "."]


def _bsdtar_words(path: Path) -> list[str]:
    """libarchive's, which turns one archive into another."""
    program = find_program("bsdtar")
    return [program, "--create", "--format=pax", "--file=-", f"@{os.path.abspath(path)}"]


def _packing(command: list[str], errors: BinaryIO) -> subprocess.Popen[bytes]:
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"}
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": errors}
    named = [os.path.basename(command[0]), *command[1:]]  # what begins its messages
    return Program(named, executable=command[0], env=environment, **streams)


@contextlib.contextmanager
def scratch_errors() -> Iterator[BinaryIO]:
    """A file for what a program says on its standard error: no pipe that somebody would have to read."""
    with open(os.memfd_create("errors", os.MFD_CLOEXEC), "r+b") as file:
        yield cast(BinaryIO, file)


def said(errors: BinaryIO) -> list[str]:
    """The last lines of what a program said."""
    size = os.fstat(errors.fileno()).st_size
    text = os.pread(errors.fileno(), _SAID_MAX, max(0, size - _SAID_MAX)).decode(errors="replace")
    return text.strip().splitlines()


def failed(what: str, lines: list[str], way_out: str | None = None) -> UmlError:
    """The error of a program, with the last of its words; if those are that there is no room, it is only that."""
    if any(map(_FULL.search, lines)):
        return UmlError(f"{what}: {os.strerror(errno.ENOSPC)}", "make room there")
    return UmlError(what, way_out, details="\n".join(lines[-_SHOWN:]))


def require_room(lines: list[str]) -> None:
    """OSError if a program's last words are that there is no room: whoever knows the file names it."""
    if any(map(_FULL.search, lines)):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _count_sockets(lines: list[str], losses: Losses) -> list[str]:
    """The lines of GNU tar but for those about sockets, which are losses."""
    for line in lines:
        if line.endswith(_SOCKET):
            losses.add(SOCKETS, line.removeprefix("tar: ").removesuffix(_SOCKET).removeprefix("."))
    return [line for line in lines if not line.endswith(_SOCKET)]


# humfs ----------------------------------------------------------------------------------------


async def _export(root: Path, fd: int, report: ImageReport) -> None:
    await trio.to_thread.run_sync(_export_now, root, fd, report)


def _export_now(root: Path, fd: int, report: ImageReport) -> None:
    # Whoever reads has failed if the pipe is broken, and says why.
    with contextlib.suppress(BrokenPipeError), open(fd, "wb", closefd=False, buffering=1 << 16) as output:
        export_tree(root, output, report.losses)


async def flatten(image: Image, root: Path, report: ImageReport) -> None:
    """Put all layers of a container image on each other, in a new humfs."""
    from humfs.archive import import_archive
    from humfs.volume import create

    path, losses, warn = str(image.path), report.losses, report.warn

    def work() -> None:
        create(root, 1 << 50, durable=False)
        trio.run(lambda: import_archive(root, path, tag=image.tag, losses=losses, warn=warn, is_new=True))

    await trio.to_thread.run_sync(work)


# Disks ----------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def _readable(image: Image, near: Path) -> AsyncIterator[Image]:
    """The disk, or one with the same contents, whose blocks we can read."""
    if image.format.qemu is None:
        await _require_filesystem(image)
        yield image
        return
    with scratch_file(near) as fd:
        await convert_with_qemu(image, fd, "raw")
        raw = replace(image, path=Path(f"/proc/self/fd/{fd}"), format=Format.RAW, shown=image.name)
        await _require_filesystem(raw)
        yield raw


async def _require_filesystem(image: Image) -> None:
    """UsageError that tells of the partitions, if the disk has some."""
    from runtime.appliance import disk

    async with disk.opened(parse(image.word)) as device:
        assert isinstance(device, BlockDevice)
        found = await disk.parts(device)
    if not found or any(part.number is not None for part in found):
        raise several(image.name, found)


async def convert_with_qemu(source: Image, fd: int, target: str, options: Sequence[str] = ()) -> None:
    """Write the disk `source` to the file behind `fd`, in qemu's format `target`. UmlError.

    `options` are further ones of `qemu-img convert`.
    """
    program = find_program("qemu-img")
    path = str(source.path) if source.path.is_absolute() else f"./{source.path}"
    open_file(path, read_only=True).close()  # says who has it; qemu has locks of its own, which ours would break
    inherited = [int(source.path.name)] if path.startswith("/proc/self/fd/") else []
    formats = ["-f", source.format.qemu or "raw", "-O", target]
    done = await trio.run_process(
        [program, "convert", *options, *formats, path, f"/proc/self/fd/{fd}"],
        stdin=subprocess.DEVNULL,
        capture_stdout=True,
        capture_stderr=True,
        pass_fds=[fd, *inherited],
        process_group=0,
        check=False,
    )
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip().removeprefix("qemu-img: ")
        require_room(words.splitlines())
        raise UmlError(f"{source.name}: qemu-img cannot convert it: {words}", "see 'qemu-img check'")


async def _read_in_guest(image: Image, fd: int, report: ImageReport) -> None:
    """Have a guest's kernel mount the disk, which stays as it is, and pack what is there."""
    packed = await read_disk(image, fd)
    lines = packed.lines
    unread = [line for line in lines if line.endswith(_UNREAD)]
    lines = _count_sockets([line for line in lines if line not in unread], report.losses)
    if unread and packed.has_attributes:
        report.losses.add(
            "attributes and capabilities, which this kernel does not read in a squashfs, are left out", ""
        )
    if not packed.complete:
        raise failed(f"{image.name}: not all of it can be read", lines, "see what the checker of its filesystem says")
