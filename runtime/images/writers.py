"""A tar archive, in a stream, into an image of any format. Everything here waits, and is for a thread."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Final, cast

import trio

from humfs.archive import fill_new
from humfs.importer import Member
from humfs.tarball import plain
from humfs.tarcopy import pieces
from runtime.host.needs import find_program
from runtime.images import ext4
from runtime.images.sink import ImageReport, pour
from runtime.images.streams import failed, require_room, said, scratch_errors
from umlfs.errors import UmlError
from umlfs.host.programs import Program

_COMPRESSORS: Final = {
    "gzip": ["-n"],
    "bzip2": [],
    "xz": ["-T2"],
    "zstd": ["-q", "-T0"],
}
"""By program: options with which the same input gives the same output anywhere."""


def to_ext4(
    stream: BinaryIO,
    fd: int,
    settings: ext4.Settings,
    report: ImageReport,
    check: Callable[[Member], None] | None = None,
) -> None:
    """Into a new ext4 in the file behind `fd`. `check` looks at each member."""
    ext4.make_filesystem(fd, settings)
    with ext4.Ext4Writer(f"/proc/self/fd/{fd}", settings, report.losses) as writer:
        pour(stream, writer, report, check)


_OF_THE_HOST: Final = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM}
)
"""Errors that are not the archive's fault."""


def to_humfs(stream: BinaryIO, root: Path, size: int | None, report: ImageReport) -> None:
    """Into a new humfs at `root` that has room for `size` bytes; see `humfs.archive.fill_new`."""

    def progress(count: int) -> None:
        report.tick(count, "files")

    try:
        trio.run(lambda: fill_new(root, stream, report.losses, size=size, warn=report.warn, progress=progress))
    except UmlError as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno and (cause.errno in _OF_THE_HOST or str(root) in error.what):
            raise OSError(cause.errno, os.strerror(cause.errno)) from error  # in a directory that nobody knows yet
        raise


# Directories ----------------------------------------------------------------------------------


def to_directory(stream: BinaryIO, root: Path, report: ImageReport) -> None:
    """Into a new directory: whole as root; else without owners, and so without set-id bits and devices."""
    root.mkdir(0o755)
    as_root = os.geteuid() == 0
    words = ["tar", "--extract", "--file=-", "--xattrs", f"--directory={root}", "--numeric-owner"]
    words.append("--warning=no-unknown-keyword")  # `hdrcharset`, which is POSIX's own
    if as_root:
        words += ["--same-permissions", "--same-owner", "--xattrs-include=*"]
    else:
        words += ["--no-same-owner", "--no-same-permissions"]
        words += ["--xattrs-include=user.*", "--xattrs-include=system.posix_acl_*"]
    with scratch_errors() as errors:
        # Not with our own umask: modes are the archive's.
        options = {"stdin": subprocess.PIPE, "stderr": errors, "env": _ENVIRONMENT, "umask": 0}
        options["executable"] = find_program("tar")
        process = Program(words, **options)
        status = feed(stream, process, report)
        lines = said(errors)
    devices = [line for line in lines if line.endswith(_NO_DEVICE)]
    others = [line for line in lines if line not in devices and _EXITING not in line]
    if status and (as_root or others or not devices):
        require_room(others or lines)
        raise failed("the directory cannot have all that is in the archive", others or lines)
    if not as_root:
        report.losses.add("owners, set-id bits and capabilities, which only root can give, are left out", "")
        for line in devices:
            path = line.removeprefix("tar: ").removesuffix(f": {_NO_DEVICE}").removeprefix(".")
            report.losses.add("devices, which only root can make, are left out", path)


_ENVIRONMENT: Final = {"PATH": os.defpath, "LC_ALL": "C"}
_NO_DEVICE: Final = "Cannot mknod: Operation not permitted"
_EXITING: Final = "Exiting with failure status due to previous errors"


def feed(stream: BinaryIO, process: subprocess.Popen[bytes], report: ImageReport) -> int:
    """Give a program the archive, decompressed; returns its exit status. What it does not take is left."""
    pipe = cast(BinaryIO, process.stdin)
    try:
        with contextlib.suppress(BrokenPipeError), pipe:
            copy(stream, pipe.write, report, plain_lists=True)
    except BaseException:
        process.kill()
        raise
    finally:
        process.wait()
    return process.returncode


def copy(stream: BinaryIO, write: Callable[[bytes], object], report: ImageReport, *, plain_lists: bool = False) -> None:
    """Write all of an archive, decompressed; `report` is told of each MiB. DamagedError for what is none, or cut short.

    With `plain_lists` access lists become attributes like others, which GNU tar unpacks without being told.
    """
    done = 0
    with plain(stream) as source:
        for data in pieces(source, report.losses, plain_lists=plain_lists):
            write(data)
            if (done + len(data)) >> 20 > done >> 20:
                report.tick((done + len(data)) >> 20, "MiB")
            done += len(data)


# tar ------------------------------------------------------------------------------------------


def to_tar(stream: BinaryIO, fd: int, compressor: str | None, report: ImageReport) -> None:
    """Into a tar file, compressed by the program `compressor`, behind `fd`."""
    with open(fd, "wb", closefd=False) as output:
        if compressor is None:
            copy(stream, output.write, report)
            return
        words = _COMPRESSORS[compressor]
        with scratch_errors() as errors:
            process = Program(
                [find_program(compressor), *words, "-c"],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=errors,
                env={**os.environ, "LC_ALL": "C"},
            )
            if feed(stream, process, report):
                lines = said(errors)
                require_room(lines)
                raise failed(f"{compressor} failed", lines)
