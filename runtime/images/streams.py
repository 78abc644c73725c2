"""Every image as a tar archive, in a stream: read by the guest's kernel where it holds a filesystem."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final, cast

import trio

from humfs.export import Exporter
from humfs.volume import Volume
from runtime.images.formats import Format, Image
from runtime.images.output import scratch_directory, scratch_file
from runtime.images.parts import several
from runtime.images.programs import find_program
from runtime.images.sink import Warn
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
TURN_SECONDS: Final = 1e-4
"""How long a thread computes while a guest waits for another one."""
_PIPE_SIZE: Final = 1 << 20
_SAID_MAX: Final = 1 << 20
_SHOWN: Final = 15
_FULL: Final = re.compile(re.escape(os.strerror(errno.ENOSPC)) + "|: Wrote only [0-9]+ of [0-9]+ bytes$")
"""The system's words for it, and GNU tar's."""
_SOCKET: Final = ": socket ignored"
_CHANGED: Final = 1
"""GNU tar's exit status when files changed while it read them."""


@contextlib.asynccontextmanager
async def tar_stream(image: Image, near: Path, warn: Warn) -> AsyncIterator[BinaryIO]:
    """The image's files as a tar archive, compressed only if it is such a file itself; to be read in a thread.

    `near` is a directory for what has to be put down in between. What cannot be read is an UmlError when the context
    ends: until then, what was read may be cut short.
    """
    if image.format is Format.TAR:
        with _opened(image.path) as file:
            yield file
    elif image.format is Format.DIRECTORY:
        async with _packed_directory(image.path, warn) as stream:
            yield stream
    elif image.format is Format.HUMFS:
        async with _piped(lambda fd: _export(image.path, fd, warn)) as stream:
            yield stream
    elif image.format is Format.OCI:
        with scratch_directory(near) as scratch:
            await flatten(image.path, scratch / "flat", warn)
            async with _piped(lambda fd: _export(scratch / "flat", fd, warn)) as stream:
                yield stream
    else:
        async with _readable(image, near) as word, _piped(lambda fd: _read_in_guest(word, fd, warn)) as stream:
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
async def _packed_directory(path: Path, warn: Warn) -> AsyncIterator[BinaryIO]:
    with scratch_errors() as errors, _packing(path, errors) as process:
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
        lines = _tell_sockets(said(errors), warn)
        if status > _CHANGED:
            raise failed(f"{path}: not all of it can be read", lines)
        for line in lines:
            warn(line.removeprefix("tar: "))


def _packing(path: Path, errors: BinaryIO) -> subprocess.Popen[bytes]:
    command = [find_program("tar", "tar"), *TAR, "--directory", str(path), "."]
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": errors}
    return Program(command, env=environment, **streams)


@contextlib.contextmanager
def scratch_errors() -> Iterator[BinaryIO]:
    """A file for what a program says on its standard error: no pipe that somebody would have to read."""
    with open(os.memfd_create("errors", os.MFD_CLOEXEC), "r+b") as file:
        yield cast(BinaryIO, file)


def said(errors: BinaryIO) -> list[str]:
    """The last lines of what a program said."""
    size = os.fstat(errors.fileno()).st_size
    words = os.pread(errors.fileno(), _SAID_MAX, max(0, size - _SAID_MAX)).decode(errors="replace")
    return words.strip().splitlines()


def failed(what: str, lines: list[str], way_out: str | None = None) -> UmlError:
    """The error of a program, with the last of its words; if those are that there is no room, it is only that."""
    if any(map(_FULL.search, lines)):
        return UmlError(f"{what}: {os.strerror(errno.ENOSPC)}", "make room there")
    return UmlError(what, way_out, details="\n".join(lines[-_SHOWN:]))


def _tell_sockets(lines: list[str], warn: Warn) -> list[str]:
    """The lines of GNU tar but for those about sockets, which `warn` is told of."""
    for line in lines:
        if line.endswith(_SOCKET):
            warn(f"{line.removeprefix('tar: .').removesuffix(_SOCKET)}: left out, tar has no sockets")
    return [line for line in lines if not line.endswith(_SOCKET)]


# humfs ----------------------------------------------------------------------------------------


async def _export(root: Path, fd: int, warn: Warn) -> None:
    await trio.to_thread.run_sync(_export_now, root, fd, warn)


def _export_now(root: Path, fd: int, warn: Warn) -> None:
    volume = Volume(root)
    try:
        with open(fd, "wb", closefd=False, buffering=1 << 16) as output:
            Exporter(volume, output, warn).run()
    except BrokenPipeError:
        pass  # whoever reads has failed, and says why
    finally:
        volume.close()


async def flatten(image: Path, root: Path, warn: Warn) -> None:
    """Put all layers of a container image on each other, in a new humfs."""
    from humfs.archive import import_archive
    from humfs.volume import create

    def work() -> None:
        create(root, 1 << 50)
        trio.run(lambda: import_archive(root, str(image), warn=warn))

    await trio.to_thread.run_sync(work)


# Disks ----------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def _readable(image: Image, near: Path) -> AsyncIterator[str]:
    """The `SRC` word of a disk whose blocks we can read."""
    if not image.format.by_qemu:
        await _require_filesystem(image.word, image.path)
        yield image.word
        return
    with scratch_file(near) as fd:
        await convert_with_qemu(image.path, image.format.value, fd, "raw")
        word = f"raw:/proc/self/fd/{fd}"
        await _require_filesystem(word, image.path)
        yield word


async def _require_filesystem(word: str, path: Path) -> None:
    """UsageError that tells of the partitions, if the disk has some."""
    from runtime.appliance import disk

    async with disk.opened(parse(word)) as device:
        assert isinstance(device, BlockDevice)
        found = await disk.parts(device)
    if not found or any(part.number is not None for part in found):
        raise several(path, found)


async def convert_with_qemu(path: Path, format_: str, fd: int, target: str, inherited: Sequence[int] = ()) -> None:
    """Write the disk in `path` to the file behind `fd`, in another format. UmlError.

    `inherited` are descriptors that `path` leads to.
    """
    program = find_program("qemu-img", "qemu-utils")
    place = str(path) if path.is_absolute() else f"./{path}"
    open_file(path, read_only=True).close()  # says who has it; qemu has locks of its own, which ours would break
    done = await trio.run_process(
        [program, "convert", "-f", format_, "-O", target, place, f"/proc/self/fd/{fd}"],
        stdin=subprocess.DEVNULL,
        capture_stdout=True,
        capture_stderr=True,
        pass_fds=[fd, *inherited],
        process_group=0,
        check=False,
    )
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip().removeprefix("qemu-img: ")
        raise UmlError(f"{path}: qemu-img cannot convert it: {words}", "see 'qemu-img check'")


@contextlib.contextmanager
def quick_turns() -> Iterator[None]:
    """A thread that computes hands the interpreter over at once: by default a guest would wait 5 ms for us after each
    system call that we make for it, for as long as another thread makes files of what it reads."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(TURN_SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


async def _read_in_guest(word: str, fd: int, warn: Warn) -> None:
    """Have a guest's kernel mount the disk, which stays as it is, and pack what is there."""
    # Most conversions need no machine, and importing it takes longer than many a conversion.
    from runtime.appliance import disk
    from runtime.appliance.packing import pack
    from runtime.appliance.part import choose
    from runtime.tty.streams import Descriptor
    from umlfs.blocks.slice import Slice
    from umlfs.cow.scratch import Scratch

    path = word.partition(":")[2]
    sink = Descriptor(fd, write=True)
    try:
        async with disk.opened(parse(word)) as device:
            assert isinstance(device, BlockDevice)
            part = choose(path, await disk.parts(device), None)
            seen = Scratch(Slice(device, 0, device.size))
            try:
                with quick_turns():
                    complete, lines = await pack(seen, part.kind or "", sink)
            except UmlError as error:
                raise UmlError(f"{path}: {error.what}", error.way_out, details=error.details) from None
            finally:
                with trio.CancelScope(shield=True):
                    await seen.close()
    finally:
        sink.close()
    lines = _tell_sockets(lines, warn)
    if not complete:
        raise failed(f"{path}: not all of it can be read", lines, "see what the checker of its filesystem says")
